"""The commands one after another, as a user gives them, each with no more than the step before it has left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import HEIGHT, WIDTH

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


def dlv3deploy(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlv3deploy", *arguments], capture_output=True, text=True, check=False, cwd=folder, timeout=300
    )


def succeed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = dlv3deploy(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """A working folder in which `train`, `export` and `build-engine` have run."""
    from dlv3deploy.scenes import Drive, write_video

    folder = tmp_path_factory.mktemp("chain")
    write_video(folder / "drive.mp4", Drive(5, 64, 96), seconds=1.0, fps=12)
    architecture = ("--backbone", "resnet18", "--width", "0.25", "--aspp-channels", "16", "--aspp-rates", "1,2,3")
    succeed(
        folder,
        "train",
        str(scenes),
        "--steps",
        "40",
        "--batch-size",
        "6",
        "--validate-every",
        "20",
        *architecture,
    )
    succeed(folder, "export")
    succeed(folder, "build-engine")
    succeed(folder, "build-engine", "--int8")
    return folder


def test_the_workspace_holds_every_artefact(folder: Path) -> None:
    names = {p.name for p in (folder / "artifacts").iterdir()}
    assert {
        "model.safetensors",
        "model.onnx",
        "model.int8.onnx",
        "calibration.json",
        "model.fp32.cpu.engine",
        "model.fp32.cpu.engine.json",
        "model.int8.cpu.engine",
        "model.int8.cpu.engine.json",
    } <= names
    assert not [name for name in names if "partial" in name]


def test_run_labels_a_video_with_no_other_argument(folder: Path) -> None:
    import cv2

    done = succeed(folder, "run", "--source", "drive.mp4")
    assert "12 frames" in done.stderr
    video = cv2.VideoCapture(str(folder / "artifacts" / "drive.labelled.mp4"))
    frames = 0
    while video.read()[0]:
        frames += 1
    assert frames == 12


def test_masks_of_a_folder_are_written_as_class_ids(folder: Path, scenes: Path, tmp_path: Path) -> None:
    from dlv3deploy.core.images import read_label

    succeed(folder, "run", "--source", str(scenes / "val" / "images"), "--sink", f"{tmp_path}/masks/")
    masks = sorted((tmp_path / "masks").glob("*.png"))
    assert [p.stem for p in masks] == sorted(p.stem for p in (scenes / "val" / "images").iterdir())
    assert all(read_label(p).shape == (64, 96) for p in masks)
    assert max(read_label(p).max() for p in masks) < 8


def test_checkpoint_onnx_and_engine_score_alike(folder: Path) -> None:
    names = ("model.safetensors", "model.onnx", "model.fp32.cpu.engine", "model.int8.cpu.engine")
    scores = [json.loads(succeed(folder, "evaluate", f"artifacts/{name}", "--json").stdout) for name in names]
    for score in scores:
        assert {"miou", "pixel_accuracy", "per_class_iou", "images", "model", "data", "size"} <= set(score)
        assert score["images"] == 6
    exact = [score["miou"] for score in scores[:3]]
    assert max(exact) - min(exact) < 1e-3
    assert abs(scores[3]["pixel_accuracy"] - scores[0]["pixel_accuracy"]) < 0.05
    assert scores[0]["pixel_accuracy"] > 0.3  # forty steps teach something: guessing gives an eighth


def test_json_is_the_only_thing_on_stdout(folder: Path) -> None:
    for arguments in (
        ("evaluate", "--json"),
        ("inspect", "--json"),
        ("doctor", "--json"),
        ("run", "--source", "drive.mp4", "--sink", "none", "--json"),
    ):
        json.loads(succeed(folder, *arguments).stdout)


def test_inspect_lists_the_atrous_convolutions_of_the_graph(folder: Path) -> None:
    facts = json.loads(succeed(folder, "inspect", "artifacts/model.onnx", "--json").stdout)
    rates = sorted(c["atrous_rate"][0] for c in facts["convolutions"] if c["atrous"])
    # At stride 16 the last stage's convolutions take rate 2, but for the first block's first; then ASPP's 2 and 3 (1 is none).
    assert rates == [2, 2, 2, 2, 3]
    outer = next(c for c in facts["convolutions"] if c["atrous_rate"] == [3, 3])
    assert outer["input_shape"][1:] == [5, 7]
    # Of five rows all but the middle one reach one tap 3 away, and of seven columns all do, the middle one two.
    shares = {"6": 4 * 1, "4": 4 * 6, "3": 1 * 1, "2": 1 * 6}
    assert outer["valid_taps"] == pytest.approx({taps: positions / 35 for taps, positions in shares.items()})
    assert facts["spec"]["classes"]["names"][0] == "sky"
    assert facts["spec"]["parents"]["checkpoint"]


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "model.int8.cpu.engine"])
def test_inspect_says_what_each_artefact_is(folder: Path, name: str) -> None:
    text = succeed(folder, "inspect", f"artifacts/{name}").stdout
    assert "road" in text
    assert "65×97" in text


def test_a_new_checkpoint_makes_the_export_and_the_engines_stale(folder: Path, tmp_path: Path) -> None:
    work = shutil.copytree(folder / "artifacts", tmp_path / "artifacts").parent
    shutil.copy(work / "artifacts" / "train" / "last.safetensors", work / "artifacts" / "model.safetensors")
    checkpoint = work / "artifacts" / "model.safetensors"
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    weights = load_file(checkpoint)
    with safe_open(str(checkpoint), "np") as file:
        metadata = file.metadata()
    weights["classifier.4.bias"] = weights["classifier.4.bias"] + np.float32(1)
    save_file(weights, str(checkpoint), metadata)
    done = dlv3deploy(work, "build-engine")
    assert done.returncode == 3
    assert "dlv3deploy export" in done.stderr
    done = dlv3deploy(work, "evaluate")
    assert done.returncode == 3
    assert "passed over" in done.stderr
    succeed(work, "export")
    done = dlv3deploy(work, "evaluate", "artifacts/model.fp32.cpu.engine")
    assert done.returncode == 3
    assert "sha256 of model.onnx" in done.stderr
    assert "dlv3deploy build-engine --fp32" in done.stderr


def test_tensorrt_rtx_builds_fp16_and_int8_from_the_workspace(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    work = shutil.copytree(folder / "artifacts", tmp_path / "artifacts").parent
    for precision in ("--fp16", "--int8"):
        said = succeed(work, "build-engine", precision, "--backend", "tensorrt-rtx").stderr
        assert ("FP16 on this target: " in said) == (precision == "--int8")
    built = sorted(p.name for p in (work / "artifacts").glob("*rtx.engine"))
    assert built == ["model.fp16.tensorrt-rtx.engine", "model.int8.tensorrt-rtx.engine"]


def test_an_engine_is_built_with_images_of_the_users_own(work: Path, scenes: Path) -> None:
    succeed(work.parent, "build-engine", "--int8", "--images", str(scenes / "val" / "images"), "--calibration-images", "3")
    table = json.loads((work / "calibration.json").read_text())
    assert table["images"] == 3
    assert table["resolution"] == [HEIGHT, WIDTH]
