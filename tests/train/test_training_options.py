"""What a run does with its options: averaged weights, frozen batch norm, passes, weighed and repeated classes, a start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import SMALL, UnbrokenRun, lively_model, rows_of, shallow_model, small_plan, small_spec, tensors_of

from dlv3deploy.core.classes import anonymous_classes
from dlv3deploy.core.datasets import open_dataset
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import read_label
from dlv3deploy.core.spec import Architecture
from dlv3deploy.scenes import ROAD_SCENE
from dlv3deploy.train import loop
from dlv3deploy.train.checkpoint import load_checkpoint, load_start, save_checkpoint
from dlv3deploy.train.loop import train
from dlv3deploy.train.loss_choice import LossChoice
from dlv3deploy.train.network.deeplabv3 import DeepLabV3
from dlv3deploy.train.run import Run

pytestmark = pytest.mark.usefixtures("shallow_network")

Weights = dict[str, torch.Tensor]


def weights_after_steps(monkeypatch: pytest.MonkeyPatch, data: Path, root: Path, **options: Any) -> tuple[list[Weights], Run]:
    """The network's own weights behind every step of a run, and the run."""
    real, seen, runs = loop.update, [], []

    def noted(run: Run, *rest: Any) -> float:
        loss = real(run, *rest)
        seen.append({name: tensor.clone() for name, tensor in run.model.state_dict().items()})
        runs.append(run)
        return loss

    monkeypatch.setattr(loop, "update", noted)
    train(small_plan(data, **options), root / "model.safetensors", root / "train")
    return seen, runs[-1]


def test_the_average_is_what_is_validated_and_saved(few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins as the weights behind the first step, and moves by a tenth of the way to each later one."""
    seen, run = weights_after_steps(monkeypatch, few_scenes, tmp_path, steps=4, ema_decay=0.9)
    expected = {name: tensor.clone() for name, tensor in seen[0].items()}
    for weights in seen[1:]:
        expected = {n: 0.9 * t + 0.1 * weights[n] if t.is_floating_point() else t for n, t in expected.items()}
    saved = tensors_of(tmp_path / "train" / "last.safetensors")
    for name, tensor in expected.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(saved[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert run.judged is not run.model
    assert not torch.equal(saved["classifier.4.weight"], seen[-1]["classifier.4.weight"])


def test_a_run_with_an_average_is_resumed_as_if_it_had_not_stopped(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, real = small_plan(few_scenes, ema_decay=0.8), loop.update
    train(plan, tmp_path / "unbroken.safetensors", tmp_path / "unbroken")

    def stopped(run: Run, step: int, *rest: Any) -> float:
        if step == 6:
            raise KeyboardInterrupt
        return real(run, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(plan, tmp_path / "model.safetensors", tmp_path / "train")
    train(plan, tmp_path / "model.safetensors", tmp_path / "train", resume=True)
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "train" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_frozen_batch_norm_keeps_scale_shift_and_statistics(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, shallow_model(), small_spec())
    options: dict[str, Any] = {"frozen_batch_norm": True, "start_from": start, "batch_size": 1, "learning_rate": 1e-3}
    seen, run = weights_after_steps(monkeypatch, few_scenes, tmp_path, steps=3, **options)
    before, after = tensors_of(start), seen[-1]
    norms = {n for n, m in run.model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert len(norms) > 8
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == (name.rpartition(".")[0] in norms), name


@pytest.mark.parametrize("passes", [2, 4])
def test_passes_with_batch_norm_frozen_learn_what_one_pass_learns(few_scenes: Path, tmp_path: Path, passes: int) -> None:
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, shallow_model(), small_spec())
    options: dict[str, Any] = {"batch_size": 4, "frozen_batch_norm": True, "start_from": start, "optimiser": "sgd"}
    for number in (1, passes):
        root = tmp_path / str(number)
        plan = small_plan(few_scenes, accumulate=number, learning_rate=1e-3, **options)
        train(plan, root / "model.safetensors", root / "train")
    one, several = ([float(row["loss"]) for row in rows_of(tmp_path / str(n) / "train")] for n in (1, passes))
    assert several == pytest.approx(one, rel=1e-5)
    assert one[-1] < 0.9 * one[0]


def test_the_classes_weights_are_those_of_the_training_labels(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = weights_after_steps(monkeypatch, few_scenes, tmp_path, steps=1, loss=LossChoice(class_weights=True))
    pixels, around = np.zeros(len(ROAD_SCENE)), np.zeros(len(ROAD_SCENE))
    for sample in open_dataset(few_scenes, "train").samples:
        counts = np.bincount(read_label(sample.label).ravel(), minlength=256)[: len(ROAD_SCENE)]
        pixels += counts
        around += (counts > 0) * counts.sum()
    expected = around / pixels
    expected *= pixels.sum() / (expected * pixels).sum()
    assert run.loss.weights is not None
    np.testing.assert_allclose(run.loss.weights.numpy(), expected, rtol=1e-5)


def test_images_that_hold_a_repeated_class_come_several_times(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = ROAD_SCENE.names.index("person")
    holding = [s for s in open_dataset(few_scenes, "train").samples if (read_label(s.label) == person).any()]
    options: dict[str, Any] = {"repeat_classes": ("person",), "repeats": 3}
    _, run = weights_after_steps(monkeypatch, few_scenes, tmp_path, steps=1, **options)
    assert len(run.train_set) == 5 + 2 * len(holding)
    assert all(run.train_set.samples.count(sample) == 3 for sample in holding)


def test_training_goes_on_from_a_checkpoint_at_another_output_stride(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paper, section 4.1: 16, then 8. (The shallow network has no stride to give up; names and rates are those of the head.)"""
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, shallow_model(), small_spec())
    finer = SMALL.at_output_stride(8)

    def stop(run: Run, *_: object) -> float:
        own = run.model.state_dict()
        assert all(torch.equal(tensor, own[name]) for name, tensor in tensors_of(start).items())
        assert run.model.architecture.aspp_rates == (2, 4, 6)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "update", stop)
    with pytest.raises(KeyboardInterrupt):
        train(small_plan(few_scenes, architecture=finer, start_from=start), tmp_path / "m.safetensors", tmp_path / "train")


def test_with_other_classes_all_but_the_last_layer_begins_where_the_checkpoint_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, model = tmp_path / "start.safetensors", shallow_model()
    save_checkpoint(start, model, small_spec())
    other = DeepLabV3(replace(SMALL, auxiliary=True), 3)
    fresh = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    load_start(start, other, anonymous_classes(3))
    own = model.state_dict()
    for name, tensor in other.state_dict().items():
        begun_anew = name.startswith(("classifier.4", "aux_classifier."))
        assert torch.equal(tensor, fresh[name] if begun_anew else own[name]), name
    assert "classifier.4 begin anew" in capsys.readouterr().err


def test_classes_of_another_name_are_learnt_anew_though_they_are_as_many(tmp_path: Path) -> None:
    start, model = tmp_path / "start.safetensors", shallow_model()
    save_checkpoint(start, model, small_spec())
    other = DeepLabV3(SMALL, len(ROAD_SCENE))
    fresh = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    load_start(start, other, anonymous_classes(len(ROAD_SCENE)))
    changed = {name for name, tensor in other.state_dict().items() if not torch.equal(tensor, fresh[name])}
    assert "classifier.4.weight" not in changed and "classifier.1.weight" in changed


@pytest.mark.parametrize(
    "architecture",
    [
        replace(SMALL, aspp_rates=(1, 2, 3, 4)),
        replace(SMALL, aspp_rates=(1, 2, 4)),
        replace(SMALL, aspp_channels=16),
        replace(SMALL, image_pooling=False),
        replace(SMALL, decoder=True),
        replace(SMALL, early_padding=True),
        replace(SMALL, final_convolution=False),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, architecture: Architecture) -> None:
    """Those too whose weights would fit: other rates, other padding, a layer less."""
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, shallow_model(), small_spec())
    with pytest.raises(UserError, match="leave the network's options out"):
        load_start(start, DeepLabV3(architecture, len(ROAD_SCENE)), ROAD_SCENE)


@pytest.mark.parametrize(
    "loss", [LossChoice(label_smoothing=0.1), LossChoice(hard_below=0.7), LossChoice(dice_weight=1.0)], ids=str
)
def test_every_loss_learns(few_scenes: Path, tmp_path: Path, loss: LossChoice) -> None:
    plan = small_plan(few_scenes, crop=(64, 96), scale=(1.0, 1.0), flip=False, learning_rate=4e-2, loss=loss)
    train(plan, tmp_path / "model.safetensors", tmp_path / "train")
    losses = [float(row["loss"]) for row in rows_of(tmp_path / "train")]
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.slow
def test_a_compiled_network_learns_what_a_plain_one_learns(few_scenes: Path, tmp_path: Path) -> None:
    """Without dropout, whose random numbers the compiler draws in another order."""
    for compiled in (False, True):
        root = tmp_path / str(compiled)
        train(small_plan(few_scenes, compiled=compiled, dropout=0.0), root / "model.safetensors", root / "train")
    plain, ours = (tmp_path / str(compiled) for compiled in (False, True))
    losses = [[float(row["loss"]) for row in rows_of(root / "train")] for root in (plain, ours)]
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)
    assert set(tensors_of(ours / "model.safetensors")) == set(tensors_of(plain / "model.safetensors"))


def test_the_run_leaves_a_report_and_a_picture_of_its_data(unbroken: UnbrokenRun, few_scenes: Path) -> None:
    report = json.loads((unbroken.folder / "data.json").read_text(encoding="utf-8"))
    assert (report["train"]["images"], report["val"]["images"]) == (5, 3)
    assert report["train"]["sizes"] == [{"height": 64, "width": 96, "images": 5}]
    assert set(report["train"]["classes"]) == set(ROAD_SCENE.names)
    assert (unbroken.folder / "samples.png").stat().st_size > 0


@pytest.mark.parametrize("output_stride", [8, 32])
def test_a_checkpoint_opens_at_another_output_stride(tmp_path: Path, output_stride: int) -> None:
    architecture = Architecture("mobilenet_v2", 16, (2, 4), 8)
    save_checkpoint(tmp_path / "model.safetensors", lively_model(architecture), small_spec(architecture))
    model, spec = load_checkpoint(tmp_path / "model.safetensors", output_stride)
    assert spec.architecture == architecture.at_output_stride(output_stride) == model.architecture
    with pytest.raises(UserError, match="8, 16, 32"):
        load_checkpoint(tmp_path / "model.safetensors", 64)
