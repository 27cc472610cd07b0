"""Run `small_plan` in a process of its own and kill it: `train_until_killed.py DATA ROOT STEP` dies by SIGKILL before STEP."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from small_runs import shallow_backbone, small_plan

from dlv3deploy.train import loop
from dlv3deploy.train.samples import Pair


def main(data: Path, root: Path, last: int) -> None:
    torch.set_num_threads(1)  # as the run that it is compared with
    step_as_it_is = loop.update

    def step_or_die(run: loop.Run, step: int, parts: Sequence[Pair]) -> float:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return step_as_it_is(run, step, parts)

    setattr(loop, "update", step_or_die)  # noqa: B010 (mypy lets no function be assigned to)
    with shallow_backbone():
        loop.train(small_plan(data), root / "model.safetensors", root / "train")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
