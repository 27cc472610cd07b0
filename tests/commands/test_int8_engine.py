"""`build-engine --int8` from what `calibrate` left behind: for whom it was made, and whether it still is that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run as dlv3deploy
from command_line import succeed
from tiny_models import tiny_deeplab, write_tiny
from typer.testing import Result

from dlv3deploy.engines.manifest import Manifest

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

GREY = (127.5, 127.5, 127.5)
DESCRIBED = ("--mean", "127.5,127.5,127.5", "--std", "127.5,127.5,127.5")


@pytest.fixture
def foreign(tmp_path: Path, images: Path) -> tuple[Path, Path]:
    """An ONNX file that does not describe itself, and a workspace with its calibration in another scale of pixels."""
    (tmp_path / "other.onnx").write_bytes(tiny_deeplab().SerializeToString())
    work = tmp_path / "artifacts"
    options = ("--images", images, "--method", "min-max", "--no-report")
    done = succeed("calibrate", tmp_path / "other.onnx", "--workspace", work, *options, *DESCRIBED)
    assert f"next: dlv3deploy build-engine --int8 {tmp_path}/other.onnx --workspace {work}" in done.stderr
    return tmp_path / "other.onnx", work


def build(model: Path, work: Path, *options: object) -> Result:
    return dlv3deploy("build-engine", "--int8", model, "--workspace", work, "--backend", "onnxruntime", *options)


def test_what_was_said_of_a_foreign_model_need_not_be_said_again(foreign: tuple[Path, Path]) -> None:
    done = build(*foreign)
    assert done.exit_code == 0 and "assumed: RGB" in done.stderr, done.stderr
    spec = Manifest.read(foreign[1] / "other.int8.cpu.engine").spec
    assert spec.input.mean == spec.input.std == GREY
    assert "--mean 127.5,127.5,127.5" in Manifest.read(foreign[1] / "other.int8.cpu.engine").command


def test_nor_where_it_is_calibrated_anew(foreign: tuple[Path, Path], images: Path) -> None:
    done = build(*foreign, "--images", images)
    assert done.exit_code == 0 and "as in" in done.stderr and "ImageNet" not in done.stderr, done.stderr
    assert Manifest.read(foreign[1] / "other.int8.cpu.engine").spec.input.mean == GREY


def test_another_scale_of_pixels_is_calibrated_anew_with_images(foreign: tuple[Path, Path], images: Path) -> None:
    done = build(*foreign, "--images", images, "--mean", "0,0,0", "--std", "255,255,255")
    assert done.exit_code == 0, done.stderr
    assert Manifest.read(foreign[1] / "other.int8.cpu.engine").spec.input.std == (255, 255, 255)


def test_what_is_kept_from_int8_is_fp16_for_tensorrt(foreign: tuple[Path, Path], images: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    model, work = foreign
    again = ("--images", images, "--method", "min-max", "--no-report", "--keep-fp16", "atr*", *DESCRIBED)
    succeed("calibrate", model, "--workspace", work, *again)
    succeed("build-engine", "--int8", model, "--workspace", work, "--backend", "tensorrt-rtx", "--target", "sm_89")
    found = Manifest.read(work / "other.int8.tensorrt-rtx-89.engine").layer_precision
    assert (found["atrous"], found["stem"]) == ("fp16", "int8")
    assert build(*foreign).exit_code == 0
    assert Manifest.read(work / "other.int8.cpu.engine").layer_precision["atrous"] == "fp32"


def test_a_part_of_the_description_may_be_said_anew(foreign: tuple[Path, Path]) -> None:
    done = build(*foreign, "--ignore-index", 100)
    assert done.exit_code == 0, done.stderr
    spec = Manifest.read(foreign[1] / "other.int8.cpu.engine").spec
    assert spec.classes.ignore_index == 100 and spec.input.mean == GREY


def test_another_scale_of_pixels_than_the_calibrations_is_refused(foreign: tuple[Path, Path]) -> None:
    done = build(*foreign, "--mean", "0,0,0", "--std", "255,255,255")
    assert done.exit_code == 1 and "leave --mean and --std out" in done.stderr
    assert "(127.5, 127.5, 127.5)" in done.stderr and "(255.0, 255.0, 255.0)" in done.stderr
    assert not list(foreign[1].glob("*.engine"))
    assert build(*foreign, *DESCRIBED).exit_code == 0


def test_a_changed_file_is_described_anew(foreign: tuple[Path, Path], images: Path) -> None:
    foreign[0].write_bytes(tiny_deeplab(seed=1).SerializeToString())
    done = build(*foreign, "--images", images)
    assert done.exit_code == 0 and "ImageNet's mean and std" in done.stderr, done.stderr


@pytest.mark.parametrize("precision", [(), ("--int8",), ("--fp32",)])
def test_a_quantised_file_is_no_source_of_an_engine(foreign: tuple[Path, Path], precision: tuple[str, ...]) -> None:
    done = dlv3deploy("build-engine", foreign[1] / "other.int8.onnx", "--workspace", foreign[1], *precision)
    assert done.exit_code == 1 and "engines are built from the floating-point file" in done.stderr


def test_an_engine_of_an_older_calibration_is_refused(tmp_path: Path, images: Path) -> None:
    (work := tmp_path / "artifacts").mkdir()
    write_tiny(work / "model.onnx")
    again = ("calibrate", "--workspace", work, "--images", images, "--no-report", "--method")
    succeed(*again, "min-max")
    assert build(work / "model.onnx", work).exit_code == 0
    engine, image = work / "model.int8.cpu.engine", images / "0.png"
    run = ("run", engine, "--source", image, "--sink", tmp_path / "masks/", "--json")
    assert json.loads(succeed(*run).stdout)["frames"] == 1
    elsewhere = tmp_path / "elsewhere.engine"
    assert build(work / "model.onnx", work, "--to", elsewhere).exit_code == 0
    for model in (engine, elsewhere):
        succeed(*again, "min-max")
        succeed("run", model, *run[2:])
        succeed(*again, "min-max", "--trt-version", "8.6.1")  # another cache, and the same model
        succeed("run", model, *run[2:])
    succeed(*again, "mse")
    done = dlv3deploy(*run)
    assert done.exit_code == 3 and "model_sha256 in calibration.json" in done.stderr and "build-engine" in done.stderr
    assert dlv3deploy("run", elsewhere, *run[2:]).exit_code == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--backend", "tensorrt"), "tensorrt"),
        (("--backend", "tensorrt-rtx", "--dla", "0"), "--dla: tensorrt-rtx"),
        (("--backend", "tensorrt-rtx", "--version-compatible"), "--version-compatible: tensorrt-rtx has no such engines"),
        (("--tune", "--fp16", "--backend", "onnxruntime"), "--fp16 with ONNX Runtime: needs a GPU"),
        (("--backend", "tensorrt-rtx", "--target", "sm_999"), "compute capability 'sm_999'"),
        (("--backend", "tensorrt-rtx", "--tune", "--device", "gtx1080"), "device 'gtx1080'"),
        (("--backend", "tensorrt-rtx", "--tune"), "no device is named to estimate them for"),
        (("--backend", "onnxruntime", "--batch", "2"), "takes one image; export it with --dynamic-batch"),
    ],
)
def test_what_cannot_be_built_here_is_refused_before_anything_is_calibrated(
    tmp_path: Path, images: Path, options: tuple[str, ...], says: str
) -> None:
    if "tensorrt-rtx" in options:
        pytest.importorskip("tensorrt_rtx")
    work = tmp_path / "artifacts"
    work.mkdir()
    model = write_tiny(work / "model.onnx")
    refused = dlv3deploy("build-engine", "--int8", model, "--workspace", work, "--images", images, *options)
    assert refused.exit_code == 1 and says in refused.stderr, refused.output
    assert [path.name for path in work.iterdir()] == ["model.onnx"]
