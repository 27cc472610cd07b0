"""The feeds of several sources, read round by round: one frame of each at most, and no waiting for one that has none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from dlv3deploy.video.feed import CLOSE_WAIT_S, Feed, gone_silent
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.newest import NewestFrame
from dlv3deploy.video.prefetch import Prefetch

if TYPE_CHECKING:
    from typing_extensions import Self

HasRoom = Callable[[int], bool]
LOOK_EVERY_S = 1.0  # whether a sink that has no room is stuck


class Feeds:
    """Live sources give their newest frame, others every frame. The sources stay the caller's to close.

    Whoever makes room for frames says so by `changed`. `check` is called about once a second, to raise what others met.
    """

    def __init__(
        self, sources: Sequence[Source], changed: threading.Condition | None = None, check: Callable[[], None] = lambda: None
    ) -> None:
        self._changed, self._check = changed or threading.Condition(), check
        self._error: Exception | None = None
        self._heard_s = [time.monotonic()] * len(sources)
        kinds = [NewestFrame if source.live else Prefetch for source in sources]
        self._feeds: list[Feed] = [kind(source, self._changed) for kind, source in zip(kinds, sources, strict=True)]
        self._left = set(range(len(sources)))

    def read(
        self, within_s: float, has_room: HasRoom = lambda _: True, at_once: bool = False
    ) -> list[tuple[int, CapturedFrame]] | None:
        """The next frame of each source that has one `within_s` seconds after the first of them; None when all have ended.

        A source without room for what its frame leads to, which is asked with `changed` held, is not read from meanwhile. When
        no frame is there within that time and it is to be `at_once`, there is none. Raises what a source raised, and UserError
        for one that is stuck.
        """
        found = list[tuple[int, CapturedFrame]]()
        while self._left and not found:
            self._check()
            if self._error is not None:
                raise self._error
            with self._changed:
                self._changed.wait_for(lambda: self._due(has_room), 0 if at_once else min(LOOK_EVERY_S, self._patience_s()))
                # also where it is to be at once: the next frame is mostly about to come
                self._changed.wait_for(lambda: len(self._due(has_room)) == sum(map(has_room, self._left)), within_s)
                ready, held = self._due(has_room), {index for index in self._left if not has_room(index)}
            now_s = time.monotonic()
            for index in held:
                self._heard_s[index] = now_s  # it was not listened to
            for index in ready:
                self._heard_s[index] = now_s
                try:
                    frame = self._feeds[index].read()
                except Exception as error:
                    if not found:
                        raise
                    self._error = error  # behind the frames of the others
                    break
                if frame is None:
                    self._left.discard(index)
                else:
                    found.append((index, frame))
            if at_once and not found:
                break
            for index in self._left:
                if now_s - self._heard_s[index] > self._feeds[index].source.silence_s:
                    raise gone_silent(self._feeds[index].source)
        return sorted(found, key=lambda pair: pair[0]) if found or self._left else None

    def dropped(self, index: int) -> int:
        return self._feeds[index].dropped

    def leave(self, index: int) -> None:
        """Read no more of this source."""
        self._left.discard(index)

    def _due(self, has_room: HasRoom) -> list[int]:
        return [index for index in self._left if self._feeds[index].is_ready and has_room(index)]

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
