"""Run `small_plan` in two processes, as on two GPUs: `train_on_two_processes.py DATA ROOT [--resume]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from small_runs import small_plan

from dlv3deploy.train import devices, loop


def two_processes(**settings: Any) -> Fabric:
    return Fabric(**{**settings, "accelerator": "cpu", "devices": 2, "strategy": "ddp"})


if __name__ == "__main__":
    torch.set_num_threads(1)
    setattr(devices, "Fabric", two_processes)  # noqa: B010 (what mypy takes for a type)
    data, root = Path(sys.argv[1]), Path(sys.argv[2])
    plan = small_plan(data, batch_size=4, steps=6, validate_every=3, learning_rate=0.02)
    result = loop.train(plan, root / "model.safetensors", root / "train", resume="--resume" in sys.argv)
    print(result.miou, result.pixel_accuracy)
