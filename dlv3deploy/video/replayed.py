"""Frames played as a camera would send them, a time code in each: for measuring the whole way to the mask."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dlv3deploy.core.images import Frame
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.time_code import stamp


class ReplayedSource(Source):
    """A live source of `frames`, H×W×3 BGR, over and over, `fps` a second for `seconds`.

    Frame i is shown i/fps seconds after the start and carries that time; who reads later gets the one that is shown then.
    """

    live = True
    frame_count = None

    def __init__(self, frames: Sequence[Frame], fps: float, seconds: float) -> None:
        self._frames, self._seconds, self.fps = frames, seconds, fps
        height, width = frames[0].shape[:2]
        self.size = height, width
        self._start_s: float | None = None
        self._next = 0
        self._closed = False

    def read(self) -> CapturedFrame | None:
        assert self.fps is not None
        now_s = time.monotonic()
        self._start_s = self._start_s or now_s
        self._next = max(self._next, int((now_s - self._start_s) * self.fps))
        shown_s = self._start_s + self._next / self.fps
        if self._closed or shown_s - self._start_s > self._seconds:
            return None
        time.sleep(max(0.0, shown_s - now_s))
        pixels = self._frames[self._next % len(self._frames)].copy()
        stamp(pixels, shown_s)
        self._next += 1
        return CapturedFrame(pixels, self._next - 1, time.monotonic(), f"replayed_{self._next - 1:06d}")

    def close(self) -> None:
        self._closed = True
