"""Ctrl-C only between whole steps, so that what is saved on it belongs to one step and resuming repeats nothing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from lightning_fabric import Fabric

from dlv3deploy.core.progress import say

PATIENCE_S = 10.0


class StepAbandoned(KeyboardInterrupt):
    """Ctrl-C once more on a step that does not end: it is half done, and nothing of it may be saved."""


class StoppedTogether(KeyboardInterrupt):
    """Ctrl-C that reached one process or several, and that all of them heed behind the same step."""


class Held:
    """A handler that notes Ctrl-C; `since` says when it came."""

    since: float | None = None

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.since is None:
            self.since = time.monotonic()
            say("stopping after this step")
        elif time.monotonic() - self.since >= PATIENCE_S:
            raise StepAbandoned


@contextmanager
def interrupts_held() -> Iterator[Held]:
    """Note Ctrl-C while the block runs and deliver it when the block has ended well; off the main thread do nothing.

    Inside another such block it is that one which delivers it. Raises StepAbandoned inside the block when Ctrl-C comes again
    `PATIENCE_S` or more after the first.
    """
    held, previous = Held(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or isinstance(previous, Held):
        yield previous if isinstance(previous, Held) else held
        return
    signal.signal(signal.SIGINT, held)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, previous)
    if held.since is not None:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def stopping_together(fabric: Fabric) -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back in every process of several; the function that is yielded, called by all, raises StoppedTogether.

    A process that left by itself would leave the others waiting for it in the middle of a step.
    """
    if fabric.world_size == 1:
        yield lambda: None
        return
    with interrupts_held() as held:

        def stop_if_asked() -> None:
            asked = torch.tensor(float(held.since is not None), device=fabric.device)
            if fabric.all_reduce(asked, reduce_op="sum") > 0:
                raise StoppedTogether

        yield stop_if_asked


def ignore_interrupts(_worker: int) -> None:
    """For worker processes, which a terminal's Ctrl-C reaches too: the main process ends them when its step is whole."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
