"""Ctrl-C only between whole steps, so that what is saved on it belongs to one step and resuming repeats nothing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dlv3deploy.core.progress import say

PATIENCE_S = 10.0


class StepAbandoned(KeyboardInterrupt):
    """Ctrl-C once more on a step that does not end: it is half done, and nothing of it may be saved."""


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Note Ctrl-C while the block runs and deliver it when the block has ended well; off the main thread do nothing.

    Raises StepAbandoned inside the block when Ctrl-C comes again `PATIENCE_S` or more after the first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held_since: float | None = None

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal held_since
        if held_since is None:
            held_since = time.monotonic()
            say("stopping after this step")
        elif time.monotonic() - held_since >= PATIENCE_S:
            raise StepAbandoned

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if held_since is not None:
        signal.raise_signal(signal.SIGINT)


def ignore_interrupts(_worker: int) -> None:
    """For worker processes, which a terminal's Ctrl-C reaches too: the main process ends them when its step is whole."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
