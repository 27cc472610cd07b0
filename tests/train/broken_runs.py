"""Runs that are broken off and gone on with, and what they must then equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from small_runs import UnbrokenRun, rows_of, small_plan

from dlv3deploy.train import loop
from dlv3deploy.train.loop import train


class Killed(BaseException):
    """Nobody catches this, as nobody catches SIGKILL."""


def start(data: Path, root: Path, **changes: Any) -> loop.TrainingResult:
    return train(small_plan(data, **changes), root / "model.safetensors", root / "train")


def resume(data: Path, root: Path, **changes: Any) -> loop.TrainingResult:
    return train(small_plan(data, **changes), root / "model.safetensors", root / "train", resume=True)


def assert_ends_like(unbroken: UnbrokenRun, root: Path, result: loop.TrainingResult) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        assert (root / "train" / name).read_bytes() == (unbroken.folder / name).read_bytes(), name
    assert (root / "model.safetensors").read_bytes() == unbroken.checkpoint.read_bytes()
    assert rows_of(root / "train") == rows_of(unbroken.folder)
    assert replace(result, checkpoint=Path(), seconds=0) == replace(unbroken.result, checkpoint=Path(), seconds=0)


def raising_at(step: int, error: type[BaseException]) -> Callable[..., float]:
    real = loop.update

    def stepped(run: loop.Run, number: int, *rest: Any) -> float:
        if number == step:
            raise error
        return real(run, number, *rest)

    return stepped
