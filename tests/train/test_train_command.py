"""`dlv3deploy train`: from the command line to files, and one line with an exit code for everything that cannot be."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import environment, rows_of
from torch._dynamo.exc import TorchRuntimeError
from torch._inductor.exc import CppCompileError
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.core.classes import CAMVID
from dlv3deploy.core.spec import Architecture, InputSpec
from dlv3deploy.train import loop
from dlv3deploy.train.checkpoint import load_checkpoint
from dlv3deploy.train.data_check import check_data
from dlv3deploy.train.loss import SegmentationLoss
from dlv3deploy.train.run_state import RunFolder

SMALL = [
    "--crop",
    "48x64",
    "--steps",
    "4",
    "--batch-size",
    "2",
    "--aspp-channels",
    "8",
    "--workers",
    "0",
    "--precision",
    "32-true",
    "--validate-every",
    "2",
]


def train(data: Path, workspace: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["train", str(data), "--workspace", str(workspace), *SMALL, *options])


def error_of(result: Result) -> str:
    """The one line on stderr of a run that ended with 1, and nothing on stdout."""
    assert result.exit_code == 1, result.output
    *said, line = result.stderr.strip().splitlines()
    assert all(text.startswith(("training ", "input ")) for text in said), said
    assert line.startswith("error: ") and result.stdout == ""
    return line


def test_training_leaves_a_model_that_says_what_it_is(few_scenes: Path, tmp_path: Path) -> None:
    options = "--output-stride 32 --aspp-rates 1,2 --auxiliary --mean 1,2,3 --std 4,5,6 --seed 7 --optimizer sgd --lr 0.01"
    result = train(few_scenes, tmp_path, *options.split(), "--no-flip", "--size", "96x64", "--crop", "64x65", "--scale", "1,1")
    assert result.exit_code == 0, result.output
    assert "best validation mIoU 0." in result.stderr and result.stdout == ""
    assert result.stderr.splitlines()[:2] == [
        "training DeepLabv3 with mobilenet_v2, output stride 32, ASPP rates 1, 2, from random weights",
        "input 96×64 (stretch), crop 64×65, interpolation half-pixel, batch 2, 4 steps",
    ]
    assert re.search(r" after 4 steps in [0-9.]+ s\n", result.stderr)
    assert f"wrote {tmp_path / 'model.safetensors'}; next: dlv3deploy export --workspace {tmp_path}" in result.stderr
    _, spec = load_checkpoint(tmp_path / "model.safetensors")
    assert spec.architecture == Architecture("mobilenet_v2", 32, (1, 2), 8, auxiliary=True)
    assert spec.input == InputSpec(96, 64, mean=(1, 2, 3), std=(4, 5, 6))
    assert {p.name for p in (tmp_path / "train").iterdir()} == {
        "best.safetensors",
        "last.safetensors",
        "metrics.csv",
        "curve.png",
        "state.pt",
        "data.json",
        "samples.png",
        "checked",
    }
    assert [float(row["learning_rate"]) for row in rows_of(tmp_path / "train")] == [0.01 * 0.75**0.9, 0.01 * 0.25**0.9]


def test_left_alone_the_input_is_the_first_images_and_the_rates_are_the_papers(few_scenes: Path, tmp_path: Path) -> None:
    assert train(few_scenes, tmp_path, "--steps", "1").exit_code == 0
    _, spec = load_checkpoint(tmp_path / "model.safetensors")
    assert (spec.input.height, spec.input.width) == (65, 97)
    assert spec.architecture is not None and spec.architecture.aspp_rates == (6, 12, 18)


def test_from_takes_the_network_and_the_preprocessing_of_the_checkpoint(
    few_scenes: Path, tmp_path: Path, lively_checkpoint: Path
) -> None:
    own = [option for option in SMALL if option not in ("--aspp-rates", "1,2,3", "--aspp-channels", "8")]
    words = ["train", str(few_scenes), "--workspace", str(tmp_path), *own, "--steps", "1", "--from", str(lively_checkpoint)]
    result = CliRunner().invoke(app, [*words, "--output-stride", "8"])
    assert result.exit_code == 0, result.output
    assert f"output stride 8, ASPP rates 2, 4, 6, from {lively_checkpoint}\n" in result.stderr
    begun, spec = (load_checkpoint(path)[1] for path in (lively_checkpoint, tmp_path / "model.safetensors"))
    assert begun.architecture is not None and spec.architecture == begun.architecture.at_output_stride(8)
    assert (spec.input.mean, spec.input.std) == (begun.input.mean, begun.input.std)


def test_classes_may_come_from_the_command_line(few_scenes: Path, tmp_path: Path) -> None:
    known = open_classes(few_scenes)
    result = train(few_scenes, tmp_path, "--steps", "1", "--class-names", ", ".join(f"c{i}" for i in range(len(known))))
    assert result.exit_code == 0, result.output
    assert load_checkpoint(tmp_path / "model.safetensors")[1].classes.names == tuple(f"c{i}" for i in range(len(known)))


def open_classes(data: Path) -> tuple[str, ...]:
    from dlv3deploy.core.datasets import dataset_classes

    return dataset_classes(data).names


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--backbone vgg16", "backbone 'vgg16': is unknown; use one of resnet18"),
        ("--output-stride 4", "output stride 4: is none of 8, 16, 32"),
        ("--output-stride 0", "output stride 0: is none of 8, 16, 32"),
        ("--aspp-rates 6,x", "--aspp-rates 6,x: is no list of whole numbers"),
        ("--aspp-rates 6,0", "--aspp-rates 6,0: is no list of whole numbers"),
        ("--classes mars", "classes 'mars'"),
        ("--ignore-index 0", "ignore index 0"),
        ("--ignore-index 300", "ignore index 300"),
        ("--size 60x96", "height 60: a side is a multiple of the output stride 16"),
        ("--size big", "size 'big': is no HEIGHTxWIDTH"),
        ("--crop 40x64", "height 40"),
        ("--scale 2", "--scale '2': is not two numbers"),
        ("--scale 2,1", "scale 2.0 to 1.0"),
        ("--batch-size 1", "batch norm needs at least 2 images"),
        ("--optimiser adam", "--optimiser 'adam': is unknown; use one of adamw, sgd"),
        ("--learning-rate -1", "learning rate -1.0"),
        ("--std 0,1,1", "pixels are divided by it"),
        ("--mean 1,2", "--mean '1,2': is not three numbers"),
        ("--precision fp8", "--precision 'fp8': is unknown; use one of auto, 32-true, bf16-mixed, 16-mixed"),
        ("--head unet", "--head 'unet': is unknown; use one of aspp, cascade, deeplabv2, lraspp"),
        ("--resize crop", "--resize 'crop': is unknown; use one of stretch, letterbox"),
        ("--split val", "--split 'val': is unknown; use one of train, trainval"),
        ("--resume", "holds no run to resume"),
        ("--resume --restart", "exclude each other"),
        ("--backbone-weights nothing.pth", "nothing.pth: does not exist"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_1(few_scenes: Path, tmp_path: Path, options: str, says: str) -> None:
    assert says in error_of(train(few_scenes, tmp_path, *options.split()))
    assert not (tmp_path / "model.safetensors").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nothing'}: is no folder" in error_of(train(tmp_path / "nothing", tmp_path))


@pytest.mark.parametrize(
    "options", ["--steps 0", "--validate-every 0", "--workers -1", "--seed -1", "--no-such-option", "--steps x"]
)
def test_bad_usage_is_exit_2(few_scenes: Path, tmp_path: Path, options: str) -> None:
    assert train(few_scenes, tmp_path, *options.split()).exit_code == 2


def test_labels_of_other_classes_are_exit_1_with_the_file(few_scenes: Path, tmp_path: Path) -> None:
    assert len(CAMVID) > 3
    result = train(few_scenes, tmp_path, "--class-names", "a,b")
    assert "labels/" in error_of(result) and "ids are 0 to 1, or 255 for ignored" in error_of(result)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_file_that_spoils_after_the_check_is_exit_1_and_named(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    data = shutil.copytree(few_scenes, tmp_path / "data")
    images = sorted((data / "train" / "images").iterdir())

    def spoilt(*arguments: Any) -> Any:
        report = check_data(*arguments)
        for path in images:
            path.write_bytes(path.read_bytes()[:900])
        return report

    monkeypatch.setattr("dlv3deploy.train.preparation.check_data", spoilt)
    result = train(data, tmp_path / "space", "--workers", workers)
    assert result.exit_code == 1, result.output
    said = [line for line in result.stderr.splitlines() if "error" in line.lower() or "Traceback" in line]
    assert len(said) == 1 and said[0].startswith("error: ") and "is cut short" in said[0]
    assert any(str(path) in said[0] for path in images)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
            "in training a smaller --crop or --batch-size, or --accumulate",
        ),
        (MemoryError(), "this needs more memory than there is; use a smaller --size or --batch, in training"),
        (TorchRuntimeError("no C++ compiler\nwas found"), "cannot be compiled here (no C++ compiler); leave --compile out"),
        (CppCompileError(["g++"], "killed"), "cannot be compiled here (C++ compile error); leave --compile out"),
    ],
)
def test_what_torch_meets_is_one_line_that_helps(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def failing(*_: Any) -> float:
        raise error

    monkeypatch.setattr(loop, "update", failing)
    result = train(few_scenes, tmp_path)
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 1 and len(said) == 1 and says in said[0], result.output


def test_what_nobody_foresaw_keeps_its_traceback(few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> float:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(loop, "update", failing)
    assert isinstance(train(few_scenes, tmp_path).exception, RuntimeError)


def test_a_loss_that_diverges_is_exit_3(few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = SegmentationLoss.__call__
    monkeypatch.setattr(SegmentationLoss, "__call__", lambda *arguments: real(*arguments) * math.nan)
    result = train(few_scenes, tmp_path)
    assert result.exit_code == 3 and "error: the loss is nan at step 0; lower --learning-rate" in result.stderr


def test_interrupted_refused_and_resumed(few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.update

    def interrupted(run: loop.Run, step: int, *rest: Any) -> float:
        if step == 3:
            raise KeyboardInterrupt
        return real(run, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", interrupted)
        result = train(few_scenes, tmp_path)
    assert result.exit_code == 130
    stopped, last = result.stderr.splitlines()[-2:]
    assert stopped.startswith("stopped at step 3 of 4; go on with the same command and --resume; the best so far (mIoU 0.")
    assert stopped.endswith(f"is {tmp_path / 'train' / 'best.safetensors'}") and last == "interrupted"
    assert "use --resume to go on, --restart to begin again" in error_of(train(few_scenes, tmp_path))
    assert "--resume with --seed 5: the saved run has --seed 0" in error_of(
        train(few_scenes, tmp_path, "--resume", "--seed", "5")
    )
    resumed = train(few_scenes, tmp_path, "--resume")
    assert resumed.exit_code == 0 and f", from step 3 of the run in {tmp_path / 'train'}\n" in resumed.stderr
    assert train(few_scenes, tmp_path / "unbroken").exit_code == 0
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "unbroken" / "model.safetensors").read_bytes()
    assert rows_of(tmp_path / "train") == rows_of(tmp_path / "unbroken" / "train")
    assert train(few_scenes, tmp_path, "--restart", "--steps", "1").exit_code == 0


@pytest.mark.slow
def test_a_terminals_ctrl_c_ends_with_130_and_the_state_kept(few_scenes: Path, tmp_path: Path) -> None:
    """A terminal sends SIGINT to the worker processes too."""
    options = [*SMALL, "--steps", "100000", "--workers", "1"]
    command = [sys.executable, "-m", "dlv3deploy", "train", str(few_scenes), "--workspace", str(tmp_path), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment())
    state = tmp_path / "train" / "state.pt"
    try:
        for _ in range(600):
            if state.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and errors.splitlines()[-1] == "interrupted"
    saved = torch.load(state)["progress"]
    assert f"stopped at step {saved['step']} of 100000" in errors
    assert load_checkpoint(RunFolder(tmp_path / "train").last)[1].training is not None
