"""`dlv3deploy calibrate` with bad input: one clear line, the right exit code, and older files as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from calibrating import calibrate, pictures, refused, tree
from onnx import numpy_helper
from tiny_models import GraphWriter, tiny_deeplab, tiny_spec, write_tiny

from dlv3deploy.core.graph import embed_spec

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")


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


def test_a_model_of_any_size_is_calibrated_at_the_size_that_is_asked_for(work: Path, images: Path) -> None:
    model = tiny_deeplab(dynamic=True)
    spec = tiny_spec()
    embed_spec(model, spec)
    (work / "model.onnx").write_bytes(model.SerializeToString())
    done = calibrate(work, "--images", images, "--method", "mse+equalise")
    assert done.exit_code == 0, done.stderr
    assert "at 64×96" in done.stderr
