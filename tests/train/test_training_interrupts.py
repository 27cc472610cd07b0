"""Ctrl-C waits for the end of a step and is saved behind it; resumed, a run ends exactly as one that was not interrupted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_runs import assert_ends_like, raising_at, resume, start
from small_runs import UnbrokenRun

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.metrics import SegmentationScores
from dlv3deploy.train import loop
from dlv3deploy.train.interrupts import StepAbandoned, interrupts_held
from dlv3deploy.train.loss import SegmentationLoss
from dlv3deploy.train.run_state import RunFolder

pytestmark = pytest.mark.usefixtures("shallow_network")


@pytest.mark.parametrize("step", [0, 3, 4, 6, 11])
def test_interrupted_between_steps(
    unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", raising_at(step, KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            start(few_scenes, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    assert_ends_like(unbroken, tmp_path, resume(few_scenes, tmp_path, workers=1))


def test_interrupted_again_and_again(
    unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Callable[..., loop.TrainingResult] = start
    for step in (1, 5, 5, 9):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "update", raising_at(step, KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                run(few_scenes, tmp_path)
        run = resume
    assert_ends_like(unbroken, tmp_path, resume(few_scenes, tmp_path))
    ours, theirs = (torch.load(folder / "state.pt") for folder in (tmp_path / "train", unbroken.folder))
    for number, theirs_of_one in theirs["optimiser"]["state"].items():
        for name, tensor in theirs_of_one.items():
            assert torch.equal(ours["optimiser"]["state"][number][name], tensor)


@pytest.mark.parametrize("step", [2, 6, 11])
def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(
    unbroken: UnbrokenRun,
    few_scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    """After the forward pass batch norm has already learnt, and the weights have not yet."""
    real, calls = SegmentationLoss.__call__, iter(range(100))

    def interrupted(*arguments: Any) -> torch.Tensor:
        if next(calls) == step:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationLoss, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start(few_scenes, tmp_path)
    assert f"stopped at step {step + 1} of 12; go on with the same command and --resume" in capsys.readouterr().err
    assert_ends_like(unbroken, tmp_path, resume(few_scenes, tmp_path))


@pytest.mark.parametrize("validation", [0, 1, 2])
def test_interrupted_in_a_validation(
    unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: int
) -> None:
    real, calls = loop.validate, iter(range(100))

    def interrupted(*arguments: Any) -> SegmentationScores:
        if next(calls) == validation:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start(few_scenes, tmp_path)
    with pytest.raises(UserError, match=f"stopped at step {4 * validation + 4} of 12"):
        RunFolder(tmp_path / "train").require_free()
    assert_ends_like(unbroken, tmp_path, resume(few_scenes, tmp_path))


@pytest.mark.parametrize("save", [1, 2])
def test_interrupted_while_saving(
    unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: int
) -> None:
    real, calls = RunFolder.save_state, iter(range(100))

    def interrupted(*arguments: Any) -> None:
        if next(calls) == save:
            signal.raise_signal(signal.SIGINT)
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_state", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start(few_scenes, tmp_path)
    assert_ends_like(unbroken, tmp_path, resume(few_scenes, tmp_path))


# Holding Ctrl-C back


def test_workers_do_not_hear_the_terminals_ctrl_c(
    unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.update

    def stepped(run: loop.Run, step: int, *rest: Any) -> float:
        for worker in multiprocessing.active_children():
            assert worker.pid is not None
            for _ in range(2):  # a worker that listened would leave at the second
                os.kill(worker.pid, signal.SIGINT)
                time.sleep(0.01)
        return real(run, step, *rest)

    monkeypatch.setattr("dlv3deploy.train.interrupts.PATIENCE_S", 0.0)
    monkeypatch.setattr(loop, "update", stepped)
    assert_ends_like(unbroken, tmp_path, start(few_scenes, tmp_path, workers=1))


def test_a_held_interrupt_comes_at_the_end_of_the_block() -> None:
    done: list[str] = []

    def work() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_step_that_does_not_end_can_be_abandoned_and_is_not_saved(
    unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = SegmentationLoss.__call__, iter(range(100))

    def hanging(*arguments: Any) -> torch.Tensor:
        if next(calls) == 6:
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
            raise AssertionError("the step went on")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationLoss, "__call__", hanging)
        patch.setattr("dlv3deploy.train.interrupts.PATIENCE_S", 0.0)
        with pytest.raises(StepAbandoned):
            start(few_scenes, tmp_path)
    assert torch.load(tmp_path / "train" / "state.pt")["progress"]["step"] == 4
    assert_ends_like(unbroken, tmp_path, resume(few_scenes, tmp_path))


def test_an_error_in_the_block_goes_before_the_held_interrupt() -> None:
    def work() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        work()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_off_the_main_thread_nothing_is_held() -> None:
    done: list[bool] = []

    def work() -> None:
        with interrupts_held():
            done.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
