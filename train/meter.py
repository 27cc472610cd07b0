"""The progress of a training run on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dlv3deploy.core.metrics import SegmentationScores
from dlv3deploy.core.progress import say
from dlv3deploy.train import run_state

LINE_EVERY_S = 30.0


class TrainingMeter:
    """Shows step, smoothed loss and the latest and best validation mIoU, unless not `shown`; a context manager."""

    def __init__(self, steps: int, progress: run_state.Progress, shown: bool = True) -> None:
        self.shown = shown
        self.steps, self.loss, self.miou = steps, 0.0, "mIoU –"
        self.next_line = time.monotonic() + LINE_EVERY_S
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[miou]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not (shown and sys.stderr.isatty()),
        )
        self.task = self.bar.add_task("training", total=steps, completed=progress.step, loss=0.0, miou=self.miou)

    def __enter__(self) -> TrainingMeter:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def update(self, progress: run_state.Progress, loss: float, scores: SegmentationScores | None) -> None:
        self.loss = loss if self.loss == 0.0 else 0.95 * self.loss + 0.05 * loss
        if scores:
            self.miou = f"mIoU {scores.miou:.3f} (best {progress.best_miou:.3f})"
        self.bar.update(self.task, completed=progress.step, loss=self.loss, miou=self.miou)
        if self.shown and self.bar.disable and (scores or time.monotonic() > self.next_line):
            self.next_line = time.monotonic() + LINE_EVERY_S
            say(f"step {progress.step}/{self.steps}  loss {self.loss:.3f}  {self.miou}  {progress.seconds:.0f} s")
