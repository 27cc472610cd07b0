"""Ctrl-C and SIGTERM, while something is finished that must not be cut short."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ENDING = (signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
INTERRUPTED = 130
LOOK_EVERY_S = 0.05


@dataclass
class Noted:
    """How often the user or the system asked to stop meanwhile."""

    count: int = 0


_MET = Noted()  # all that the main thread got to; while it is stuck in a call it gets to none


@contextmanager
def interrupts_noted() -> Iterator[Noted]:
    """Count SIGINT and SIGTERM instead of acting on them; off the main thread, where neither arrives, do nothing."""
    noted = Noted()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        _MET.count += 1
        noted.count += 1

    previous = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, which service managers send, and SIGHUP, of a terminal that closes, end the block as Ctrl-C does: by
    KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    found = {number: signal.getsignal(number) for number in ENDING}
    previous = {number: handler for number, handler in found.items() if handler not in (None, signal.SIG_IGN)}  # as under nohup
    for number in previous:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def last_resort(limit_s: float, finish: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the block even where the main thread is stuck in a call that does not return.

    As long as the main thread runs, both are KeyboardInterrupt. When it has not met one after `limit_s`, `finish` is called in
    another thread and has as long again; then the process ends with exit code 130. Off the main thread nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reader, _MET.count, limit_s, finish), name="last resort", daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # which ends the thread
        watch.join()
        os.close(reader)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _MET.count += 1
    raise KeyboardInterrupt


def _watch(reader: int, met: int, limit_s: float, finish: Callable[[], None]) -> None:
    """`met` is how many signals had been met before. Once another one is, the block is being left, and this ends."""
    while arrived := os.read(reader, 64):
        if not any(number in SIGNALS for number in arrived):
            continue
        deadline_s = time.monotonic() + limit_s
        while _MET.count == met:
            if time.monotonic() > deadline_s:
                finishing = threading.Thread(target=finish, daemon=True)
                finishing.start()
                finishing.join(limit_s)
                os._exit(INTERRUPTED)
            time.sleep(LOOK_EVERY_S)
        return
