"""For live sources: the newest frame, never a backlog."""

from __future__ import annotations

from dlv3deploy.video.feed import Feed
from dlv3deploy.video.frames import CapturedFrame


class NewestFrame(Feed):
    """Keeps one frame. A caller slower than the source gets the newest, and the ones in between are counted as dropped."""

    def _offer(self, frame: CapturedFrame) -> None:
        self.dropped += len(self._frames)
        self._frames.clear()
        self._frames.append(frame)
