"""The two training loops that are compared: this package's own, and the plain one that everybody writes first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from dlv3deploy.train.batch_norm import MANY
from dlv3deploy.train.network.deeplabv3 import DeepLabV3
from dlv3deploy.train.plan import TrainingPlan
from dlv3deploy.train.precision import precision_for
from dlv3deploy.train.preparation import prepare
from dlv3deploy.train.run_state import RunFolder
from dlv3deploy.train.update import update

Batch = tuple[Tensor, Tensor]  # images N×3×H×W float32, labels N×H×W int64, on the device


class Loop(Protocol):
    """`what` says in words what is measured."""

    what: str

    def learn(self, batch: Batch) -> None:
        """One update of the weights."""
        ...


class OurLoop:
    """What `dlv3deploy train` runs for each batch, all of it: the learning rate, the loss, the check that it is finite."""

    def __init__(self, plan: TrainingPlan, folder: Path) -> None:
        with redirect_stderr(StringIO()):  # what the pictures hold is beside the point
            self.run = prepare(plan, RunFolder(folder), resume=False)
        self.run.statistics.seen = dict.fromkeys(self.run.statistics.seen, MANY)  # as for most of a run, not at its beginning
        compiled = "torch.compile" if plan.compiled else "not compiled"
        self.what = f"{precision_for(plan.precision)}, channels last, {compiled}, {plan.optimiser}"
        self.step = 0

    def learn(self, batch: Batch) -> None:
        update(self.run, self.step, [batch])
        self.step += 1


class PlainLoop:
    """The same network in float32 and the default layout, uncompiled; cross entropy of upsampled logits, SGD with momentum.

    It never waits for the device, which our loop does at every step to check the loss.
    """

    def __init__(self, plan: TrainingPlan, device: torch.device) -> None:
        torch.manual_seed(plan.seed)
        self.model = DeepLabV3(plan.architecture, len(plan.classes), plan.dropout).to(device).train()
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=plan.initial_rate, momentum=0.9, weight_decay=1e-4)
        self.ignore_index = plan.classes.ignore_index
        on = {True: "on", False: "off"}
        convolutions, products = on[torch.backends.cudnn.allow_tf32], on[torch.backends.cuda.matmul.allow_tf32]
        tf32 = f"; TF32 {convolutions} in convolutions, {products} in matrix products" if device.type == "cuda" else ""
        self.what = f"float32, contiguous, eager, sgd{tf32}"

    def learn(self, batch: Batch) -> None:
        images, labels = batch
        self.optimiser.zero_grad(set_to_none=True)
        logits = interpolate(self.model(images), size=labels.shape[1:], mode="bilinear", align_corners=False)
        loss = cross_entropy(logits, labels, ignore_index=self.ignore_index)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        self.optimiser.step()


@dataclass
class Contestant:
    """A loop with its batches and what its turns gave. Memory in bytes, 0 where the device counts none."""

    loop: Loop
    batches: Iterator[Batch]
    device: torch.device
    resident: int = 0
    peak: int = 0
    warm_up_ms: float = 0.0
    step_ms: list[float] = field(default_factory=list)

    def warm_up(self, steps: int, allocated_before: int) -> None:
        """Untimed steps, compiling among them; what stays allocated since `allocated_before` is this loop's own."""
        started = time.perf_counter()
        for _ in range(steps):
            self.loop.learn(next(self.batches))
        _wait(self.device)
        self.warm_up_ms = (time.perf_counter() - started) * 1e3
        self.resident = allocated(self.device) - allocated_before

    def turn(self, steps: int, prefetched: int) -> None:
        """Time `steps` updates as one block, between two waits for the device.

        Before it comes one untimed update, since the memory of the loop before was given back, and the batches go that were
        loaded while the other loop ran.
        """
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        of_others = allocated(self.device) - self.resident
        for _ in range(prefetched):
            next(self.batches)
        self.loop.learn(next(self.batches))
        _wait(self.device)
        started = time.perf_counter()
        for _ in range(steps):
            self.loop.learn(next(self.batches))
        _wait(self.device)
        self.step_ms.append((time.perf_counter() - started) * 1e3 / steps)
        if self.device.type == "cuda":
            self.peak = max(self.peak, torch.cuda.max_memory_allocated(self.device) - of_others)


def allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
