"""For files: decoding runs ahead of inference, and every frame is delivered, in order."""

from __future__ import annotations

from dlv3deploy.video.feed import Feed
from dlv3deploy.video.frames import CapturedFrame

FRAMES_AHEAD = 4


class Prefetch(Feed):
    """Decodes up to `FRAMES_AHEAD` frames before they are asked for, then waits."""

    def _offer(self, frame: CapturedFrame) -> None:
        self._changed.wait_for(lambda: self._closing or len(self._frames) < FRAMES_AHEAD)
        self._frames.append(frame)
