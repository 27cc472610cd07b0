"""Ctrl-C while the last results are being written: the sink is completed all the same, and the run knows of it."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

from dlv3deploy.core.classes import Classes, palette_for
from dlv3deploy.video.frames import CapturedFrame
from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.sink import Segmented, Sink
from dlv3deploy.video.writer import writer_for

RESULT = Segmented(CapturedFrame(np.zeros((4, 4, 3), np.uint8), 0, 0.0, "a"), np.zeros((4, 4), np.uint8))


class SlowToClose(Sink):
    """Stands in for a video file whose index takes a while to write."""

    def __init__(self, calling_thread: bool) -> None:
        self.wants_calling_thread, self.wants_overlay = calling_thread, False
        self.written, self.closing, self.closed = 0, threading.Event(), False

    def write(self, result: Segmented) -> None:
        self.written += 1

    def close(self) -> None:
        self.closing.set()
        time.sleep(0.5)
        self.closed = True


@pytest.mark.parametrize("presses", [1, 2, 3])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("calling_thread", [False, True])
def test_the_sink_is_completed(presses: int, number: signal.Signals, calling_thread: bool) -> None:
    sink = SlowToClose(calling_thread)

    def press() -> None:
        sink.closing.wait(10)
        for _ in range(presses):
            time.sleep(0.05)
            os.kill(os.getpid(), number)

    presser = threading.Thread(target=press)
    presser.start()
    before = signal.getsignal(number)
    with writer_for(sink, Overlay(Classes(("road",), palette_for(1)))) as writer:
        writer.write(RESULT)
    presser.join()
    assert sink.closed
    assert sink.written == 1
    assert writer.interrupted
    assert signal.getsignal(number) == before
