"""Trained models of others on real images, against figures that independent scripts measured on the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import succeed as dlv3deploy

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")
pytestmark = pytest.mark.real_data

NORMALISED = ("--mean", "127.5,127.5,127.5", "--std", "127.5,127.5,127.5")


def miou(*arguments: object) -> float:
    return float(json.loads(dlv3deploy("evaluate", *arguments, "--json").stdout)["miou"])


@pytest.mark.slow
def test_googles_voc_model_scores_what_an_independent_script_measured(shared: Path) -> None:
    model, data = shared / "models" / "deeplabv3_mnv2_voc_513.onnx", shared / "data" / "voc"
    assert miou(model, "--data", data, "--classes", "voc", *NORMALISED) == pytest.approx(0.715, abs=0.003)


@pytest.mark.slow
def test_the_camvid_model_scores_what_an_independent_script_measured(shared: Path) -> None:
    model, data = shared / "models" / "deeplabv3_mnv2_camvid.onnx", shared / "data" / "camvid"
    assert miou(model, "--data", data, "--classes", "camvid", *NORMALISED) == pytest.approx(0.6298, abs=0.002)


@pytest.mark.slow
def test_several_scales_and_a_mirror_raise_the_score_of_the_camvid_model(shared: Path) -> None:
    """Every ninth image. A mirror alone gives pixels and takes from rare classes, but no point of mIoU."""
    model, data = shared / "models" / "deeplabv3_mnv2_camvid.onnx", shared / "data" / "camvid"
    options = ("--data", data, "--classes", "camvid", *NORMALISED, "--limit", 11)
    plain, flipped = miou(model, *options), miou(model, *options, "--flip")
    paper = miou(model, *options, "--scales", "paper", "--flip")
    print(f"mIoU of 11 images: plain {plain:.4f}, flip {flipped:.4f}, the paper's scales and flip {paper:.4f}")
    assert flipped > plain - 0.01
    assert paper > plain + 0.005


@pytest.mark.slow
def test_int8_of_the_camvid_model_loses_less_than_a_point(shared: Path, tmp_path: Path) -> None:
    model, data = shared / "models" / "deeplabv3_mnv2_camvid.onnx", shared / "data" / "camvid"
    described = ("--classes", "camvid", *NORMALISED)
    images = data / "train" / "images"
    dlv3deploy(
        "build-engine", model, "--int8", "--images", images, "--calibration-images", 8, "--workspace", tmp_path, *described
    )
    scored = miou(tmp_path / f"{model.stem}.int8.cpu.engine", "--data", data, "--limit", 51)
    plain = miou(model, "--data", data, "--limit", 51, *described)
    assert scored > plain - 0.01


@pytest.mark.parametrize("precision", ["--fp32", "--fp16", "--int8"])
@pytest.mark.parametrize(
    ("name", "classes", "images"),
    [("deeplabv3_mnv2_voc_513", "voc", "voc/images"), ("deeplabv3_mnv2_camvid", "camvid", "camvid/train/images")],
)
def test_tensorrt_rtx_builds_both_models_in_every_precision(
    shared: Path, tmp_path: Path, precision: str, name: str, classes: str, images: str
) -> None:
    """INT8 by one named method, which takes the least time."""
    pytest.importorskip("tensorrt_rtx")
    model, options = shared / "models" / f"{name}.onnx", ("--workspace", tmp_path, "--classes", classes, *NORMALISED)
    if precision == "--int8":
        given = ("--images", shared / "data" / images, "--calibration-images", 4, "--method", "mse", "--no-report")
        dlv3deploy("calibrate", model, *given, *options)
    dlv3deploy("build-engine", model, "--backend", "tensorrt-rtx", precision, *options)
    facts = json.loads(dlv3deploy("inspect", tmp_path / f"{name}.{precision[2:]}.tensorrt-rtx.engine", "--json").stdout)
    kinds = list(facts["manifest"]["layer_precision"].values())
    assert kinds.count(precision[2:]) >= len(kinds) - 2  # image pooling and its share of the projection stay in floating point


def test_a_real_video_is_labelled_frame_by_frame(shared: Path, tmp_path: Path) -> None:
    model, video = shared / "models" / "deeplabv3_mnv2_camvid.onnx", shared / "data" / "video" / "solidWhiteRight.mp4"
    target = tmp_path / "labelled.mp4"
    options = ("--classes", "camvid", *NORMALISED, "--max-frames", 12, "--sink", target, "--sink", f"{tmp_path}/masks/")
    facts = json.loads(dlv3deploy("run", model, "--source", video, *options, "--json").stdout)
    assert facts["frames"] == 12
    assert cv2.VideoCapture(str(target)).get(cv2.CAP_PROP_FRAME_COUNT) == 12
    masks = sorted((tmp_path / "masks").iterdir())
    from dlv3deploy.core.images import read_label

    sky, road = 0, 3
    lower, upper = (read_label(masks[-1])[rows] for rows in (slice(400, 540), slice(0, 60)))
    assert (lower == road).mean() > 0.9
    assert (upper == sky).mean() > 0.9
