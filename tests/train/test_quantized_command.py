"""`train --quantize`: the file that is put in place, everything that tells of it, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_runs import runtime_scores
from PIL import Image
from quantized_files import batch_of, write_decided
from tiny_models import tiny_spec
from typer.testing import CliRunner, Result

from dlv3deploy.calibration.earlier import made_earlier
from dlv3deploy.calibration.exact_engine import ExactEngine
from dlv3deploy.calibration.table import CalibrationTable
from dlv3deploy.calibration.trt_cache import read_cache
from dlv3deploy.cli import app
from dlv3deploy.core.datasets import open_dataset
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.graph import embed_spec, embedded_spec, load_onnx
from dlv3deploy.core.images import list_images, read_frame
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.measure.evaluate import evaluate
from dlv3deploy.train.quantized import learning
from dlv3deploy.train.quantized.learning import Learning

QUICK = (
    *("--steps", "12", "--batch-size", "2", "--validate-every", "6", "--lr", "0.05"),
    *("--scale", "1,1", "--no-flip", "--workers", "0"),
)


@pytest.fixture(autouse=True)
def plain_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "draw_curve", lambda path, rows: path.write_bytes(b"curve"))


@pytest.fixture(scope="module")
def made(few_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, labelled by the float model, and the workspace `space`, where it is calibrated in 4 bits."""
    root = tmp_path_factory.mktemp("made")
    data, space = shutil.copytree(few_scenes, root / "data"), root / "space"
    space.mkdir()
    model = load_onnx(write_decided(space / "model.onnx", data))
    with ExactEngine(model, tiny_spec()) as engine:
        for image in [*list_images(data / "train" / "images"), *list_images(data / "val" / "images")]:
            Image.fromarray(Segmenter(engine)(read_frame(image))).save(image.parents[1] / "labels" / f"{image.stem}.png")
    calibrate(root)
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "here")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def calibrate(root: Path, *options: str) -> None:
    words = ("--workspace", root / "space", "--images", root / "data/train/images", "--method", "min-max", "--no-report")
    result = run("calibrate", *words, "--weights", "per-tensor", *(options or ("--weight-bits", "4")))
    assert result.exit_code == 0, result.output


def fine_tune(root: Path, *options: object) -> Result:
    return run("train", root / "data", "--quantize", "--workspace", root / "space", *QUICK, *options)


def contents(space: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in space.iterdir() if path.is_file()}


def test_a_better_file_takes_the_calibrated_ones_place_and_all_that_tells_of_it_follows(folder: Path) -> None:
    space, before = folder / "space", contents(folder / "space")
    result = fine_tune(folder)
    assert result.exit_code == 0, result.output
    after = contents(space)
    assert after["model.int8.previous.onnx"] == before["model.int8.onnx"] != after["model.int8.onnx"]
    assert after["calibration.previous.json"] == before["calibration.json"] != after["calibration.json"]
    assert after["model.onnx"] == before["model.onnx"]
    old, new = load_onnx(space / "model.int8.previous.onnx"), load_onnx(space / "model.int8.onnx")
    assert list(new.graph.node) == list(old.graph.node)

    table, spec = CalibrationTable.read(space / "calibration.json"), embedded_spec(new, "new")
    assert table.chosen.startswith("min-max, 4-bit weights") and table.chosen.endswith(", fine-tuned 12 steps")
    assert spec is not None and spec.training is not None
    assert spec.parents == {
        "onnx": sha256_of(space / "model.onnx"),
        "calibration": table.key.digest(),
        "calibrated": sha256_of(space / "model.int8.previous.onnx"),
    }
    samples = open_dataset(folder / "data", "val", tiny_spec().classes).samples
    mious = [evaluate(Segmenter(ExactEngine(model, tiny_spec())), samples).miou for model in (old, new)]
    assert f"validation mIoU: calibrated {mious[0]:.4f}, fine-tuned 12 steps {mious[1]:.4f}" in result.stderr
    assert mious[1] > mious[0] and spec.training.miou == mious[1] and spec.training.steps == 12
    assert spec.training.data == str((folder / "data").resolve())


def test_the_table_and_the_cache_for_implicit_int8_have_the_steps_of_the_file(folder: Path) -> None:
    space = folder / "space"
    old_cache = read_cache(space / "model.int8.cache")
    assert fine_tune(folder).exit_code == 0
    model, table = load_onnx(space / "model.int8.onnx"), CalibrationTable.read(space / "calibration.json")
    arrays = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    cache = read_cache(space / "model.int8.cache")
    assert cache.scales.keys() == old_cache.scales.keys() and cache.version == old_cache.version == "100300"
    for tensor, found in table.ranges.items():
        step = float(arrays[f"{tensor}/scale"])
        assert found.step() == pytest.approx(step, rel=1e-6) and cache.scales[tensor] == pytest.approx(step, rel=1e-6)
    assert cache.scales["inner"] == cache.scales["inner.relu"] != old_cache.scales["inner.relu"]
    plain = load_onnx(space / "model.int8.implicit.onnx")
    for weight in plain.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(weight), arrays[weight.name])
    assert not any(node.op_type == "QuantizeLinear" for node in plain.graph.node)


def test_build_engine_takes_the_fine_tuned_file_as_current_and_calibrating_again_makes_the_old_one(folder: Path) -> None:
    space, before = folder / "space", contents(folder / "space")
    assert fine_tune(folder).exit_code == 0
    tuned = contents(space)
    result = run("build-engine", "--int8", "--workspace", space, "--backend", "onnxruntime")
    assert result.exit_code == 0, result.output
    assert "one step per weight tensor, fine-tuned 12 steps" in result.stderr
    assert contents(space)["model.int8.onnx"] == tuned["model.int8.onnx"]
    manifest = json.loads(next(space.glob("model.int8.*.engine.json")).read_text(encoding="utf-8"))
    assert manifest["calibration"]["method"].endswith("fine-tuned 12 steps")
    calibrate(folder)
    again = contents(space)
    for name in ("model.int8.onnx", "calibration.json", "model.int8.cache", "model.int8.implicit.onnx"):
        assert again[name] == before[name]


def test_a_fine_tuned_file_can_be_tuned_further(folder: Path) -> None:
    space = folder / "space"
    assert fine_tune(folder).exit_code == 0
    first = sha256_of(space / "model.int8.onnx")
    result = fine_tune(folder, "--seed", 1, "--lr", 0.02)
    assert result.exit_code == 0, result.output
    table, model = CalibrationTable.read(space / "calibration.json"), load_onnx(space / "model.int8.onnx")
    spec = embedded_spec(model, "again")
    assert table.chosen.count("fine-tuned") == 2 and spec is not None and spec.training is not None
    assert spec.parents["calibrated"] == first and spec.training.steps == 24


def test_a_run_that_gets_worse_leaves_everything_as_it_was(folder: Path) -> None:
    calibrate(folder, "--weight-bits", "8")
    before = contents(folder / "space")
    result = fine_tune(folder, "--lr", 1, "--steps", 2)
    assert result.exit_code == 3
    assert "fine-tuning made it worse" in result.stderr and "validation mIoU: calibrated 0." in result.stderr
    assert contents(folder / "space") == before


def test_ctrl_c_keeps_the_best_so_far_and_ends_with_130(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = Learning._update

    def stopping(run: Learning, *pair: object) -> float:
        if run.progress.step == 8:
            raise KeyboardInterrupt
        return update(run, *pair)  # type: ignore[arg-type]  # images and labels

    monkeypatch.setattr(Learning, "_update", stopping)
    result = fine_tune(folder)
    assert result.exit_code == 130 and result.stderr.splitlines()[-1] == "interrupted"
    assert "stopped at step 8 of 12; the best so far is of step 6" in result.stderr
    files = (folder / "space" / name for name in ("model.int8.onnx", "calibration.json"))
    table = made_earlier(folder / "space" / "model.onnx", tiny_spec(), *files)
    assert table is not None and table.chosen.endswith("fine-tuned 6 steps")


def test_from_takes_an_int8_file_or_the_float_file_that_it_was_made_from(folder: Path) -> None:
    space, other = folder / "space", folder / "other"
    other.mkdir()
    for name, own in (
        ("model.onnx", "net.onnx"),
        ("model.int8.onnx", "net.int8.onnx"),
        ("calibration.json", "net.calibration.json"),
    ):
        shutil.move(space / name, other / own)
    (folder / "space" / "model.int8.cache").unlink()
    result = fine_tune(folder, "--from", other / "net.int8.onnx", "--steps", 2)
    assert result.exit_code == 0, result.output
    assert (other / "net.int8.previous.onnx").is_file() and (other / "net.calibration.previous.json").is_file()
    result = run(
        "train", folder / "data", "--quantize", "--workspace", other, *QUICK, "--steps", 2, "--from", other / "net.onnx"
    )
    assert result.exit_code == 0, result.output
    assert f"wrote {other / 'net.int8.onnx'}" in result.stderr
    assert f"next: dlv3deploy build-engine --int8 {other / 'net.onnx'} --workspace {other}" in result.stderr
    (other / "net.onnx").unlink()
    result = fine_tune(folder, "--from", other / "net.int8.onnx")
    assert result.exit_code == 1 and "lies neither beside it nor in the workspace" in result.stderr


def refusal(result: Result) -> str:
    assert result.exit_code == 1 and result.stdout == "", result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--backbone resnet18", "--backbone with --quantize: network, input and classes are the INT8 file's"),
        ("--size 64x64 --no-image-pooling", "--no-image-pooling, --size with --quantize"),
        ("--resume", "--resume with --quantize"),
        ("--dice 1", "--dice with --quantize"),
        ("--lr 3", "learning rate 3.0: is in steps of the weights' grids here"),
        ("--scale 2", "--scale '2': is not two numbers"),
        ("--split val", "--split 'val': is unknown; use one of train, trainval"),
        ("--from model.safetensors", "--from model.safetensors with --quantize: is no ONNX file"),
        ("--from nothing.onnx", "nothing.onnx: does not exist"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_1(made: Path, options: str, says: str) -> None:
    assert says in refusal(fine_tune(made, *options.split()))


def test_without_a_calibrated_file_the_command_that_makes_one_is_named(folder: Path) -> None:
    (folder / "space" / "model.int8.onnx").unlink()
    said = refusal(fine_tune(folder))
    assert "model.int8.onnx: does not exist" in said and f"dlv3deploy calibrate --workspace {folder / 'space'}" in said


@pytest.mark.parametrize("what", ["table", "float model", "int8 file"])
def test_files_that_do_not_belong_together_are_refused(folder: Path, what: str) -> None:
    space = folder / "space"
    if what == "table":
        (space / "calibration.json").unlink()
    elif what == "float model":
        write_decided(space / "model.onnx", folder / "data")
        model = load_onnx(space / "model.onnx")
        model.doc_string = "another"
        (space / "model.onnx").write_bytes(model.SerializeToString())
    else:
        model = load_onnx(space / "model.int8.onnx")
        embed_spec(model, tiny_spec())
        (space / "model.int8.onnx").write_bytes(model.SerializeToString())
    assert "is not the file that" in refusal(fine_tune(folder)) and "calibrate again" in fine_tune(folder).stderr


def test_data_of_other_classes_are_refused(folder: Path) -> None:
    classes = json.loads((folder / "data" / "classes.json").read_text(encoding="utf-8"))
    classes["names"][0] = "something else"
    (folder / "data" / "classes.json").write_text(json.dumps(classes), encoding="utf-8")
    assert "the model's classes are sky, building" in refusal(fine_tune(folder))


def test_the_written_file_gives_the_same_masks_as_its_engine(folder: Path) -> None:
    assert fine_tune(folder).exit_code == 0
    result = run("build-engine", "--int8", "--workspace", folder / "space", "--backend", "onnxruntime")
    assert result.exit_code == 0, result.output
    from dlv3deploy.engines.open import open_engine

    batch = batch_of(list_images(folder / "data" / "val" / "images")[0])
    wanted = runtime_scores(onnx.load(str(folder / "space" / "model.int8.onnx")), batch)
    with open_engine(next((folder / "space").glob("model.int8.*.engine"))) as engine:
        assert (engine.infer(batch).argmax(1) == wanted.argmax(1)).mean() > 0.95
