"""Ctrl-C only between whole steps, so that what is saved on it belongs to one step and resuming repeats nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Note Ctrl-C while the block runs and deliver it when the block has ended well. Off the main thread it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal held
        held = True

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if held:
        signal.raise_signal(signal.SIGINT)


def ignore_interrupts(_worker: int) -> None:
    """For worker processes, which a terminal's Ctrl-C reaches too: the main process ends them when its step is whole."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
