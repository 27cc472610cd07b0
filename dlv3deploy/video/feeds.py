"""The feeds of several sources, read round by round: one frame of each at most, and no waiting for one that has none."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from dlv3deploy.video.feed import CLOSE_WAIT_S, Feed, gone_silent
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.newest import NewestFrame
from dlv3deploy.video.prefetch import Prefetch

if TYPE_CHECKING:
    from typing_extensions import Self


class Feeds:
    """Live sources give their newest frame, others every frame. The sources stay the caller's to close."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._changed = threading.Condition()
        self._heard_s = [time.monotonic()] * len(sources)
        kinds = [NewestFrame if source.live else Prefetch for source in sources]
        self._feeds: list[Feed] = [kind(source, self._changed) for kind, source in zip(kinds, sources, strict=True)]
        self._left = set(range(len(sources)))

    def read(self, within_s: float) -> list[tuple[int, CapturedFrame]]:
        """The next frame of each source that has one `within_s` seconds after the first of them; empty when all have ended.

        Raises what a source raised, and UserError for one that is stuck.
        """
        found = list[tuple[int, CapturedFrame]]()
        while self._left and not found:
            with self._changed:
                self._changed.wait_for(lambda: any(f.is_ready for f in self._going()), self._patience_s())
                self._changed.wait_for(lambda: all(f.is_ready for f in self._going()), within_s)
                ready = [index for index in self._left if self._feeds[index].is_ready]
            now_s = time.monotonic()
            for index in ready:
                self._heard_s[index] = now_s
                if (frame := self._feeds[index].read()) is None:
                    self._left.discard(index)
                else:
                    found.append((index, frame))
            for index in self._left:
                if now_s - self._heard_s[index] > self._feeds[index].source.silence_s:
                    raise gone_silent(self._feeds[index].source)
        return sorted(found, key=lambda pair: pair[0])

    def dropped(self, index: int) -> int:
        return self._feeds[index].dropped

    def leave(self, index: int) -> None:
        """Read no more of this source."""
        self._left.discard(index)

    def _going(self) -> list[Feed]:
        return [self._feeds[index] for index in self._left]

    def _patience_s(self) -> float:
        now_s = time.monotonic()
        return max(0.0, min(self._heard_s[i] + self._feeds[i].source.silence_s - now_s for i in self._left) + 0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for feed in self._feeds:
            feed.stop()
        deadline_s = time.monotonic() + CLOSE_WAIT_S
        for feed in self._feeds:
            feed.close(max(0.0, deadline_s - time.monotonic()))
