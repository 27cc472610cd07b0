"""The work on frames: batches are begun, a device is left to them, and their masks are read in their order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dlv3deploy.core.frame_engine import Paint
from dlv3deploy.core.segmenter import Answer, Segmenter
from dlv3deploy.core.strategy import PLAIN
from dlv3deploy.video.facts import STAGES, Tally
from dlv3deploy.video.feeds import Feeds
from dlv3deploy.video.frames import CapturedFrame
from dlv3deploy.video.sink import FrameWork, Segmented

OnFrame = Callable[[int, int, float], None]  # frames so far, dropped so far, inference of the last one in ms


@dataclass(frozen=True)
class Begun:
    """A batch that is on its way: whose frames it has, the answers to come, and what was spent on it so far."""

    part: Sequence[tuple[int, CapturedFrame]]
    views: Sequence[int]  # of each frame
    answers: list[Answer]
    prepared_s: float
    inferred_s: float


class Work:
    """Segments the frames of a round, `ahead` batches before the one whose results are read, and keeps a tally of how long this
    thread spent on each step: what a device does meanwhile is inference only as far as it is waited for. `paints` are for the
    streams whose sinks show pictures."""

    def __init__(
        self,
        segmenter: Segmenter,
        feeds: Feeds,
        tallies: Sequence[Tally],
        on_frame: OnFrame | None,
        max_frames: int | None,
        ahead: int,
        paints: Sequence[Paint | None],
    ) -> None:
        self._segmenter, self._feeds, self._tallies, self._on_frame = segmenter, feeds, tallies, on_frame
        most = segmenter.engine.most_images
        self._at_once = 1 if segmenter.strategy != PLAIN else most or len(tallies)
        self._ahead, self._begun, self._paints = ahead, deque[Begun](), paints
        self._round, self._left = 0, [max_frames] * len(tallies)

    def on(self, there: Sequence[tuple[int, CapturedFrame]]) -> Iterator[tuple[int, Segmented]]:
        """The results that are there once the streams' frames were begun, batch by batch; whose turn is first goes round."""
        first = self._round % len(there)
        self._round += 1
        turns = [*there[first:], *there[:first]]
        for at in range(0, len(turns), self._at_once):
            self._begun.append(self._begin(turns[at : at + self._at_once]))
            if len(self._begun) > self._ahead:
                yield from self._end(self._begun.popleft())

    @property
    def has_begun(self) -> bool:
        return bool(self._begun)

    def begun_of(self, index: int) -> int:
        """How many results of this stream are still to come."""
        return sum(stream == index for batch in self._begun for stream, _ in batch.part)

    def rest(self) -> Iterator[tuple[int, Segmented]]:
        """The results that are still to come."""
        while self._begun:
            yield from self._end(self._begun.popleft())

    def _begin(self, part: Sequence[tuple[int, CapturedFrame]]) -> Begun:
        for index, _ in part:
            if (left := self._left[index]) is not None:
                self._left[index] = left - 1
                if left == 1:
                    self._feeds.leave(index)
        begun_s = time.monotonic()
        views = [list(self._segmenter.views(frame.pixels)) for _, frame in part]
        prepared_s = time.monotonic()
        answers = self._segmenter.begin([view for of_frame in views for view in of_frame])
        inferred_s = time.monotonic()
        return Begun(part, list(map(len, views)), answers, prepared_s - begun_s, inferred_s - prepared_s)

    def _end(self, begun: Begun) -> list[tuple[int, Segmented]]:
        waited_s = time.monotonic()
        self._segmenter.wait(begun.answers)
        inferred_s = begun.inferred_s + time.monotonic() - waited_s
        answers, results = iter(begun.answers), []
        for (index, frame), views in zip(begun.part, begun.views, strict=True):
            mark_s = time.monotonic()
            of_frame, paint = [next(answers) for _ in range(views)], self._paints[index]
            mask, painted = self._segmenter.finish_painted(of_frame, paint)
            ended_s = time.monotonic()
            seconds = (begun.prepared_s, inferred_s, ended_s - mark_s)
            work = FrameWork(dict(zip(STAGES, seconds, strict=True)), ended_s, self._feeds.dropped(index))
            self._tallies[index].collect(frame, mask, work)
            results.append((index, Segmented(frame, mask, work=work, painted=painted)))
            if self._on_frame is not None:
                frames, dropped = (sum(counts) for counts in zip(*((t.frames, t.dropped) for t in self._tallies), strict=True))
                self._on_frame(frames, dropped, 1000 * seconds[1])
        return results
