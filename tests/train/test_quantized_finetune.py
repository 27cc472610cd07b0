"""Fine-tuning a calibrated file: what calibration lost comes back, a seed gives one file, and Ctrl-C keeps the best.

Labels are the float model's own masks, so that its mIoU is 1 and an INT8 model's says how far it agrees with it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_runs import runtime_scores
from PIL import Image
from quantized_files import batch_of, calibrated, changed, images_of, write_decided
from tiny_models import tiny_spec

from dlv3deploy.calibration.exact_engine import ExactEngine
from dlv3deploy.calibration.fidelity import Judge
from dlv3deploy.calibration.weights import WeightGrid
from dlv3deploy.core.datasets import open_dataset
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.images import list_images, read_frame
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import InputSpec, ModelSpec, OutputSpec
from dlv3deploy.train.loss import SegmentationLoss
from dlv3deploy.train.quantized import learning
from dlv3deploy.train.quantized.finetune import FineTuned, fine_tune
from dlv3deploy.train.quantized.learning import Learning, natural_scales
from dlv3deploy.train.quantized.settings import FineTuning

QUICK = FineTuning(steps=40, batch_size=2, validate_every=20, scale=(1.0, 1.0), flip=False, workers=0)
Damaged = Callable[[Path, Path], Path]


@pytest.fixture(scope="module")
def masked_scenes(few_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The few scenes, labelled by the float tiny model."""
    root = shutil.copytree(few_scenes, tmp_path_factory.mktemp("masked") / "data")
    with ExactEngine(onnx.load(str(write_decided(root / "float.onnx", root))), tiny_spec()) as engine:
        for image in [*list_images(root / "train" / "images"), *list_images(root / "val" / "images")]:
            mask = Segmenter(engine)(read_frame(image))
            Image.fromarray(mask).save(image.parents[1] / "labels" / f"{image.stem}.png")
    return root


@pytest.fixture(autouse=True)
def plain_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "draw_curve", lambda path, rows: path.write_bytes(b"curve"))


def tuned(path: Path, data: Path, settings: FineTuning = QUICK, spec: ModelSpec | None = None) -> FineTuned:
    sets = (open_dataset(data, split, tiny_spec().classes) for split in ("train", "val"))
    return fine_tune(onnx.load(str(path)), spec or tiny_spec(), *sets, settings, path.parent / "train")


def few_bits(folder: Path, data: Path) -> Path:
    return calibrated(folder, data, data / "float.onnx", grid=WeightGrid(4, per_tensor=True))


def wide_ranges(folder: Path, data: Path) -> Path:
    """Steps that leave a dozen of 127 levels, as one absurd image among those for min-max would."""
    path = calibrated(folder, data, data / "float.onnx")
    changed(path, "relu/scale", lambda step: step * 10)
    return path


def narrow_ranges(folder: Path, data: Path) -> Path:
    path = calibrated(folder, data, data / "float.onnx")
    changed(path, "relu/scale", lambda step: step / 4)
    return path


@pytest.mark.parametrize(("damaged", "gain"), [(few_bits, 0.2), (wide_ranges, 0.04), (narrow_ranges, 0.1)])
def test_what_calibration_lost_comes_back(damaged: Damaged, gain: float, masked_scenes: Path, tmp_path: Path) -> None:
    path = damaged(tmp_path, masked_scenes)
    result = tuned(path, masked_scenes, replace(QUICK, steps=60, validate_every=30, learning_rate=0.05))
    assert result.calibrated.miou < 0.5 and result.scores.miou > result.calibrated.miou + gain
    batches = [batch_of(image) for image in list_images(masked_scenes / "val" / "images")]
    judge = Judge(onnx.load(str(masked_scenes / "float.onnx")), batches)
    before, after = judge(onnx.load(str(path))), judge(result.model)
    assert after.agreement > before.agreement + gain / 2


def test_the_same_seed_gives_the_same_file_and_another_seed_another(masked_scenes: Path, tmp_path: Path) -> None:
    path, few = few_bits(tmp_path, masked_scenes), replace(QUICK, steps=3, scale=None)
    first, second, third = (tuned(path, masked_scenes, s) for s in (few, replace(few, workers=2), replace(few, seed=1)))
    assert first.model == second.model and first.activation_steps == second.activation_steps
    assert first.model != third.model


def test_the_steps_it_reports_are_those_in_the_file(masked_scenes: Path, tmp_path: Path) -> None:
    result = tuned(wide_ranges(tmp_path, masked_scenes), masked_scenes, replace(QUICK, steps=4))
    arrays = {w.name: onnx.numpy_helper.to_array(w) for w in result.model.graph.initializer}
    assert result.steps == 4 and len(result.activation_steps) > 5
    for tensor, step in result.activation_steps.items():
        assert step == float(arrays[f"{tensor}/scale"])


def test_the_best_validation_is_what_is_kept(masked_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, mious = few_bits(tmp_path, masked_scenes), iter((0.3, 0.2, 0.6, 0.6, 0.5))
    real = Learning._validate
    monkeypatch.setattr(Learning, "_validate", lambda run: replace(real(run), miou=next(mious)))
    result = tuned(path, masked_scenes, replace(QUICK, steps=8, validate_every=2))
    monkeypatch.undo()
    monkeypatch.setattr(learning, "draw_curve", lambda path, rows: None)
    assert (result.calibrated.miou, result.scores.miou, result.steps) == (0.3, 0.6, 4)
    real_update = Learning._update
    monkeypatch.setattr(Learning, "_update", lambda run, *pair: _stopping(run, real_update, pair, after=4))
    stopped = tuned(path, masked_scenes, replace(QUICK, steps=8, validate_every=4))
    assert stopped.stopped and stopped.steps == 4 and stopped.model == result.model
    rows = (tmp_path / "train" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("step,epoch,learning_rate,loss,miou") and rows[1].startswith("4,2.0,")


def _stopping(run: Learning, update: Callable[..., float], pair: tuple[Any, ...], after: int) -> float:
    if run.progress.step == after:
        raise KeyboardInterrupt
    return update(run, *pair)


def test_stopped_before_the_first_validation_nothing_is_kept(
    masked_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, update = few_bits(tmp_path, masked_scenes), Learning._update
    monkeypatch.setattr(Learning, "_update", lambda run, *pair: _stopping(run, update, pair, after=3))
    with pytest.raises(KeyboardInterrupt):
        tuned(path, masked_scenes)
    assert "stopped before the first validation: nothing has changed" in capsys.readouterr().err


def test_a_loss_that_diverges_is_refused(masked_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = SegmentationLoss.__call__
    monkeypatch.setattr(SegmentationLoss, "__call__", lambda *arguments: real(*arguments) * math.nan)
    with pytest.raises(CheckFailed, match=r"the loss is nan at step 0; lower --learning-rate \(it is 0\.02\)"):
        tuned(few_bits(tmp_path, masked_scenes), masked_scenes)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (OutputSpec("mask"), "class ids have no gradient"),
        (OutputSpec("scores", shift=-0.25), "trained at another output stride"),
    ],
)
def test_outputs_that_labels_cannot_teach_are_refused(
    masked_scenes: Path, tmp_path: Path, output: OutputSpec, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        tuned(few_bits(tmp_path, masked_scenes), masked_scenes, spec=replace(tiny_spec(), output=output))


def test_several_processes_are_refused(masked_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UserError, match="runs in one process"):
        tuned(few_bits(tmp_path, masked_scenes), masked_scenes)


def test_pictures_are_augmented_around_the_size_at_which_the_model_sees_them(few_scenes: Path) -> None:
    sample = open_dataset(few_scenes, "train").samples[0]  # 64×96
    assert natural_scales(sample, InputSpec(64, 96)) == pytest.approx((0.75, 1.25))
    assert natural_scales(sample, InputSpec(32, 48)) == pytest.approx((0.375, 0.625))
    assert natural_scales(sample, InputSpec(32, 32, resize="letterbox")) == pytest.approx((0.25, 0.25 / 0.6), rel=0.02)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "0 steps of 4 images"),
        ({"batch_size": 0}, "200 steps of 0 images"),
        ({"validate_every": 0}, "validation every 0"),
        ({"learning_rate": 0.0}, "above 0 and up to 1"),
        ({"learning_rate": 2.0}, "above 0 and up to 1"),
        ({"learning_rate": math.nan}, "above 0 and up to 1"),
        ({"poly_power": -1.0}, "poly power -1.0"),
        ({"scale": (2.0, 1.0)}, "scale 2.0 to 1.0"),
        ({"workers": -1}, "-1 workers"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        FineTuning(**change)


def test_the_rate_falls_by_the_poly_rule() -> None:
    settings = FineTuning(steps=10, learning_rate=0.1, poly_power=2)
    np.testing.assert_allclose([settings.rate_at(s) for s in (0, 5, 9)], [0.1, 0.025, 0.001])


def test_the_first_scores_are_those_of_the_file(masked_scenes: Path, tmp_path: Path) -> None:
    path = few_bits(tmp_path, masked_scenes)
    engine = learning.GraphEngine(learning.QuantizedGraph(onnx.load(str(path))), tiny_spec(), torch.device("cpu"))
    batch = batch_of(images_of(masked_scenes)[0])
    wanted = runtime_scores(onnx.load(str(path)), batch)
    np.testing.assert_allclose(engine.infer(batch), wanted, atol=1e-5 * np.abs(wanted).max())
    with pytest.raises(ValueError, match="fake-quantised takes float32"):
        engine.infer(batch[:, :, :32])
