"""`dlv3deploy calibrate` with bad input: one clear line, the right exit code, and older files as they were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_models import GraphWriter, tiny_deeplab, tiny_spec, write_tiny
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.core.graph import embed_spec

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")


def calibrate(work: Path, *arguments: object) -> Result:
    words = ["calibrate", "--workspace", work, "--no-report", *arguments]
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(work: Path, *arguments: object, code: int = 1) -> str:
    """The one line that the command ends with; nothing on the disk has changed."""
    before = tree(work.parent)
    done = calibrate(work, *arguments)
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert done.stderr.splitlines()[-1] == lines[0]
    assert "Traceback" not in done.output
    assert tree(work.parent) == before
    return lines[0]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pictures(folder: Path, *values: np.ndarray) -> Path:
    folder.mkdir()
    for number, picture in enumerate(values):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    return pictures(tmp_path / "pictures", *random.integers(0, 255, (6, 64, 96, 3), dtype=np.uint8))


@pytest.fixture
def older(work: Path, images: Path) -> Path:
    """A workspace that holds a calibration already."""
    assert calibrate(work, "--images", images, "--method", "min-max").exit_code == 0
    assert {"model.int8.onnx", "calibration.json"} <= {path.name for path in work.iterdir()}
    return work


def rewritten(path: Path, change) -> None:
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())


# --- images ----------------------------------------------------------------------------------------------------------


def test_no_images_where_the_training_data_is_not_known(work: Path) -> None:
    line = refused(work)
    assert "model.onnx" in line
    assert "--images" in line


@pytest.mark.parametrize("kind", ["nowhere", "empty", "a file", "no pictures"])
def test_a_folder_without_pictures(older: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "given"
    if kind == "a file":
        folder.write_text("hello")
    elif kind != "nowhere":
        folder.mkdir()
    if kind == "no pictures":
        (folder / "notes.txt").write_text("hello")
    assert "given" in refused(older, "--images", folder)


def test_one_picture_is_enough_and_what_that_is_worth_is_said(work: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    done = calibrate(work, "--images", pictures(tmp_path / "one", picture), "--time-budget", 0)
    assert done.exit_code == 0, done.stderr
    assert "methods are judged on what they were calibrated on" in done.stderr
    assert "calibrated on 1 image" in done.stderr


def test_black_pictures_cause_no_ranges(older: Path, tmp_path: Path) -> None:
    black = pictures(tmp_path / "black", *np.zeros((3, 64, 96, 3), np.uint8))
    assert "single colour" in refused(older, "--images", black)


def test_a_picture_that_is_cut_short_is_named(older: Path, images: Path) -> None:
    whole = (images / "3.png").read_bytes()
    (images / "3.png").write_bytes(whole[: len(whole) // 2])
    assert "3.png" in refused(older, "--images", images, "--method", "mse")


# --- models ----------------------------------------------------------------------------------------------------------


def test_a_model_that_is_not_there(older: Path, images: Path, tmp_path: Path) -> None:
    assert "nowhere.onnx" in refused(older, tmp_path / "nowhere.onnx", "--images", images)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08\x12"])
def test_a_file_that_is_no_model(older: Path, images: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    assert "bad.onnx" in refused(older, tmp_path / "bad.onnx", "--images", images)


def test_a_size_that_a_fixed_model_does_not_take(older: Path, images: Path) -> None:
    assert "fixed at 64×96" in refused(older, "--images", images, "--size", "128x128")


@pytest.mark.parametrize("size", ["0x0", "banana", "64x96x3", "-64x96"])
def test_what_is_no_size(older: Path, images: Path, size: str) -> None:
    assert size in refused(older, "--images", images, "--size", size)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["auto", "min-max", "mse+equalise+bias+rounding"])
def test_weights_that_are_not_finite(older: Path, images: Path, value: float, method: str) -> None:
    def change(model: onnx.ModelProto) -> None:
        weight = next(w for w in model.graph.initializer if w.name == "inner.weight")
        values = numpy_helper.to_array(weight).copy()
        values[0, 0, 0, 0] = value
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))

    rewritten(older / "model.onnx", change)
    assert "inner.weight" in refused(older, "--images", images, "--method", method, code=3)


def test_weights_so_large_that_activations_overflow(older: Path, images: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        for weight in model.graph.initializer:
            if weight.name in ("inner.weight", "outer.weight"):
                weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e25), weight.name))

    rewritten(older / "model.onnx", change)
    assert "not finite" in refused(older, "--images", images, "--method", "min-max", code=3)


def test_a_graph_without_convolutions(older: Path, images: Path, tmp_path: Path) -> None:
    writer = GraphWriter()
    model = writer.model(writer.node("Relu", ["image"], "out"), 17)
    (tmp_path / "relu.onnx").write_bytes(model.SerializeToString())
    assert "no convolution" in refused(older, tmp_path / "relu.onnx", "--images", images)


def test_a_model_that_is_quantised_already(older: Path, images: Path) -> None:
    assert "model.int8.onnx: is quantised already" in refused(older, older / "model.int8.onnx", "--images", images)


def test_maps_of_class_ids_are_no_calibration_images(older: Path, images: Path) -> None:
    random = np.random.default_rng(0)
    (images.parent / "set").mkdir()
    maps = random.integers(0, 12, (13, 64, 96), dtype=np.uint8)
    maps[0, :30] = 255  # one of them shows void
    labels = pictures(images.parent / "set" / "labels", *maps)
    assert "12 of its pictures are blank, as maps of class ids look; give --images" in refused(older, "--images", labels)
    shutil.copytree(images, images.parent / "set" / "images")
    assert f"did you mean {images.parent / 'set' / 'images'}?" in refused(older, "--images", labels)


def test_a_drive_with_some_black_frames_is_calibrated_on(older: Path, images: Path) -> None:
    """More of them than are asked for, and fewer than half."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (14, 64, 96, 3), dtype=np.uint8)
    drive = pictures(images.parent / "drive", *frames, *np.zeros((12, 64, 96, 3), np.uint8))
    done = calibrate(older, "--images", drive, "--method", "min-max", "--calibration-images", 4)
    assert done.exit_code == 0 and "4 chosen; left out 12 blank" in done.stderr, done.stderr


def test_an_equal_calibration_is_kept_and_that_is_said(older: Path, images: Path) -> None:
    before = (older / "model.int8.onnx").stat().st_mtime_ns
    assert "already, and is kept" in calibrate(older, "--images", images, "--method", "min-max").stderr
    assert (older / "model.int8.onnx").stat().st_mtime_ns == before
    assert "and is kept" not in calibrate(older, "--images", images, "--method", "mse").stderr


def test_a_graph_in_half_precision(older: Path, images: Path, tmp_path: Path) -> None:
    model = tiny_deeplab()
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32:
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), weight.name))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    (tmp_path / "half.onnx").write_bytes(model.SerializeToString())
    assert "float32" in refused(older, tmp_path / "half.onnx", "--images", images)


def test_an_opset_without_steps_per_channel(older: Path, images: Path) -> None:
    write_tiny(older / "model.onnx", opset=12)
    assert "opset 12" in refused(older, "--images", images, "--method", "mse")


def test_a_foreign_model_says_what_was_assumed(work: Path, images: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(tiny_deeplab().SerializeToString())
    assert "training data is not known" in refused(work, foreign)
    done = calibrate(work, foreign, "--images", images, "--method", "min-max")
    assert done.exit_code == 0, done.stderr
    assert "assumed: output scores" in done.stderr
    assert (work / "foreign.int8.onnx").is_file()
    assert "8 channels" in refused(work, foreign, "--images", images, "--classes", "voc")


def test_a_model_that_describes_itself_is_not_described_again(older: Path, images: Path) -> None:
    assert "describes itself" in refused(older, "--images", images, "--classes", "voc")


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "named"), [("magic", "magic"), ("mse+magic", "magic"), ("", "nothing"), ("mse+clips", "equalise+clips")]
)
def test_methods_and_steps_that_do_not_exist(older: Path, images: Path, method: str, named: str) -> None:
    assert named in refused(older, "--images", images, "--method", method)


def test_a_pattern_that_names_no_convolution(older: Path, images: Path) -> None:
    line = refused(older, "--images", images, "--keep-fp16", "backbone*")
    assert "--keep-fp16 backbone*" in line
    assert "stem" in line


def test_a_pattern_that_names_them_all(older: Path, images: Path) -> None:
    assert "keep fewer" in refused(older, "--images", images, "--keep-fp16", "*")


def test_kept_convolutions_are_those_that_patterns_name(work: Path, images: Path) -> None:
    done = calibrate(work, "--images", images, "--method", "mse", "--keep-fp16", "s*", "--keep-fp16", "?uter")
    assert done.exit_code == 0, done.stderr
    pairs = {node.name for node in onnx.load(str(work / "model.int8.onnx")).graph.node if node.op_type == "QuantizeLinear"}
    kept = {"stem", "scores", "outer"}
    assert {f"{name}.weight/quantize" for name in ("inner", "atrous", "projection")} <= pairs
    assert {f"{name}.weight/quantize" for name in kept}.isdisjoint(pairs)


@pytest.mark.parametrize(("options", "is_int8"), [((), False), (("--all-int8",), True)])
def test_image_pooling_becomes_int8_where_all_is_asked_for(older: Path, images: Path, options: tuple, is_int8: bool) -> None:
    assert calibrate(older, "--images", images, "--method", "min-max", *options).exit_code == 0
    nodes = onnx.load(str(older / "model.int8.onnx")).graph.node
    assert ("pooled.weight/quantize" in {node.name for node in nodes}) is is_int8


@pytest.mark.parametrize(("option", "value"), [("--weights", "some"), ("--choose", "best"), ("--trt-version", "11.0.0")])
def test_values_that_an_option_does_not_have(older: Path, images: Path, option: str, value: str) -> None:
    assert value in refused(older, "--images", images, option, value)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--weight-bits", 1), ("--weight-bits", 9), ("--time-budget", -1), ("--calibration-images", 0), ("--budget-miou", -0.1)],
)
def test_numbers_out_of_range_are_bad_usage(older: Path, images: Path, option: str, value: float) -> None:
    before = tree(older)
    done = calibrate(older, "--images", images, option, value)
    assert done.exit_code == 2
    assert option in done.stderr
    assert tree(older) == before


@pytest.mark.parametrize(("option", "suffix"), [("--to", "onnx"), ("--table", "json")])
def test_the_float_model_is_not_written_over(older: Path, images: Path, tmp_path: Path, option: str, suffix: str) -> None:
    link = tmp_path / f"link.{suffix}"
    link.symlink_to(older / "model.onnx")
    for place in [link] if option == "--table" else [link, older / "model.onnx"]:
        assert "the model to calibrate" in refused(older, "--images", images, "--method", "mse", option, place)


def test_two_results_of_one_name(older: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "int8.onnx")
    line = refused(older, "--images", images, "--to", tmp_path / "int8.onnx", "--table", tmp_path / "link.json")
    assert "two results" in line


def test_names_that_no_onnx_and_no_json_file_has(older: Path, images: Path, tmp_path: Path) -> None:
    assert "end it in .onnx" in refused(older, "--images", images, "--to", tmp_path / "int8.txt")
    assert "end it in .json" in refused(older, "--images", images, "--table", tmp_path / "photo.jpg")


def _another_network(path: Path) -> None:
    path.write_bytes(tiny_deeplab(seed=5).SerializeToString())


def _weights_elsewhere(path: Path) -> None:
    onnx.save_model(tiny_deeplab(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)


def _text(path: Path) -> None:
    path.write_text("shopping list")


def _object(path: Path) -> None:
    path.write_text('{"names": ["road"]}')


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("mine.onnx", _another_network),
        ("mine.onnx", _weights_elsewhere),
        ("mine.implicit.onnx", _another_network),
        ("mine.cache", _text),
        ("t.json", _object),
        ("t.report.json", _object),
        ("t.html", _text),
    ],
)
def test_a_file_that_no_calibration_made_stays(
    older: Path, images: Path, tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    make(out / name)
    before = tree(out)
    places = ("--to", out / "mine.onnx", "--table", out / "t.json", "--report")
    line = refused(older, "--images", images, "--method", "mse", *places)
    assert f"{out / name}: is there, and no calibration made it" in line and "choose another name: --" in line
    assert tree(out) == before


def test_an_earlier_calibration_is_replaced_whole_or_damaged(work: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    places = ("--to", out / "mine.onnx", "--table", out / "t.json", "--report")
    assert calibrate(work, "--images", images, "--method", "mse", *places).exit_code == 0
    first = tree(out)
    assert {"mine.onnx", "mine.implicit.onnx", "mine.cache", "t.json", "t.report.json", "t.html"} == set(first)
    assert calibrate(work, "--images", images, "--method", "min-max", *places).exit_code == 0
    second = tree(out)
    assert set(second) == set(first) and not any(second[name] == first[name] for name in first if name != "t.html")
    for name in set(first) - {"t.html"}:
        (out / name).write_bytes(second[name][: len(second[name]) // 3])
    assert calibrate(work, "--images", images, "--method", "min-max", *places).exit_code == 0
    assert tree(out) == second


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--method", "mse", "--time-budget", 5), "auto alone has methods to try"),
        (("--data", "camvid"), "add --budget-miou"),
        (("--method", "mse+mse"), "one observer and then steps"),
        (("--method", "mse+bias+bias"), "bias is there twice"),
    ],
)
def test_options_that_mean_nothing_together(older: Path, images: Path, options: tuple[object, ...], said: str) -> None:
    assert said in refused(older, "--images", images, *options)


def test_a_budget_of_more_than_all_is_bad_usage(older: Path, images: Path) -> None:
    done = calibrate(older, "--images", images, "--budget-miou", 5)
    assert done.exit_code == 2 and "less than or equal to 1" in " ".join(done.stderr.split())


def test_a_new_calibration_takes_the_report_on_the_old_one_away(work: Path, images: Path) -> None:
    words = ["calibrate", "--workspace", work, "--images", images, "--method"]
    assert CliRunner().invoke(app, [str(word) for word in (*words, "min-max")]).exit_code == 0
    reports = {"calibration.html", "calibration.report.json"}
    assert reports <= set(tree(work))
    assert calibrate(work, "--images", images, "--method", "min-max").exit_code == 0
    assert reports <= set(tree(work))  # of this very calibration
    assert calibrate(work, "--images", images, "--method", "mse").exit_code == 0
    assert not reports & set(tree(work))


def test_a_report_of_an_older_version_is_taken_away_too_and_what_is_none_stays(work: Path, images: Path) -> None:
    report, page = work / "calibration.report.json", work / "calibration.html"
    for content, stays in (('{"calibration": "a", "layers": [], "older": 1}', False), ('{"layers": []}', True), ("[{}]", True)):
        report.write_text(content)
        page.write_text("a page")
        assert calibrate(work, "--images", images, "--method", "mse" if stays else "min-max").exit_code == 0
        assert report.exists() == page.exists() == stays
        (work / "calibration.json").unlink()


def test_pictures_much_smaller_than_the_input_are_said_to_be(work: Path, images: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    tiny = pictures(tmp_path / "tiny", *random.integers(0, 255, (6, 20, 30, 3), dtype=np.uint8))
    assert "much smaller" in calibrate(work, "--images", tiny, "--method", "mse").stderr
    assert "much smaller" not in calibrate(work, "--images", images, "--method", "mse").stderr


def test_auto_says_what_its_method_did_on_images_that_it_had_not_seen(work: Path, images: Path) -> None:
    done = calibrate(work, "--images", images, "--time-budget", 0)
    trial = json.loads((work / "calibration.json").read_text())["trials"][0]["fidelity"]
    assert (
        f"{trial['agreement']:.2%} of positions agree, its method in its trial, on images that it had not seen" in done.stderr
    )
    assert "its method in its trial" not in calibrate(work, "--images", images, "--method", "mse").stderr


def test_a_folder_where_a_file_is_to_go(older: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "is a folder" in refused(older, "--images", images, "--to", tmp_path / "folder")
    assert "is a folder" in refused(older, "--images", images, "--table", tmp_path / "folder")


def test_a_model_of_any_size_is_calibrated_at_the_size_that_is_asked_for(work: Path, images: Path) -> None:
    model = tiny_deeplab(dynamic=True)
    spec = tiny_spec()
    embed_spec(model, spec)
    (work / "model.onnx").write_bytes(model.SerializeToString())
    done = calibrate(work, "--images", images, "--method", "mse+equalise")
    assert done.exit_code == 0, done.stderr
    assert "at 64×96" in done.stderr
