"""A source that costs nothing: frames that were read before."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dlv3deploy.core.images import Frame
from dlv3deploy.video import CapturedFrame, Source


class FramesInMemory(Source):
    """`count` of them, again and again from the first; every one is to be worked on."""

    live = False
    fps = None

    def __init__(self, frames: Sequence[Frame], count: int) -> None:
        self._frames, self.frame_count, self._next = frames, count, 0
        height, width = frames[0].shape[:2]
        self.size = height, width

    def read(self) -> CapturedFrame | None:
        index, self._next = self._next, self._next + 1
        if index >= self.frame_count:
            return None
        return CapturedFrame(self._frames[index % len(self._frames)], index, time.monotonic(), f"{index}")

    def close(self) -> None:
        self._next = self.frame_count
