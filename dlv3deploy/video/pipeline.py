"""From sources through a segmenter into sinks: reading, inference and writing overlap, and nothing piles up between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.interrupts import Noted, last_resort
from dlv3deploy.core.progress import say
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.strategy import PLAIN
from dlv3deploy.video.facts import STAGES, RunFacts, Tally
from dlv3deploy.video.feeds import Feeds
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.pace import Pace
from dlv3deploy.video.sink import FrameWork, Segmented, Sink
from dlv3deploy.video.writer import Writer, writer_for

T = TypeVar("T")

STUCK_AFTER_S = 1.0
TOGETHER_WITHIN_S = 0.01
OnFrame = Callable[[int, int, float], None]  # frames so far, dropped so far, inference of the last one in ms


@dataclass(frozen=True)
class Stream:
    """A source and where its results go."""

    source: Source
    sink: Sink


def run_pipeline(
    source: Source,
    segmenter: Segmenter,
    sink: Sink,
    overlay: Overlay,
    *,
    max_frames: int | None = None,
    max_fps: float | None = None,
    on_frame: OnFrame | None = None,
) -> RunFacts:
    """`run_streams` with one stream."""
    streams = [Stream(source, sink)]
    (facts,) = run_streams(streams, segmenter, overlay, max_frames=max_frames, max_fps=max_fps, on_frame=on_frame)
    return facts


def run_streams(
    streams: Sequence[Stream],
    segmenter: Segmenter,
    overlay: Overlay,
    *,
    max_frames: int | None = None,
    max_fps: float | None = None,
    within_s: float = TOGETHER_WITHIN_S,
    on_frame: OnFrame | None = None,
) -> list[RunFacts]:
    """Run until the sources end, a sink is `stopped`, `max_frames` of each stream were worked on, or Ctrl-C.

    Live sources give their newest frame, others every frame, and no more than `max_fps` a second of each. In every round each
    stream has one frame at most, so that no source holds up another: the round begins with the first frame that is there, waits
    for those of the others until `within_s` later, and infers all in batches as large as the engine takes. Inference happens in
    the calling thread. A sink that is slower than its stream holds up all streams.

    Sources and sinks are closed in every case, with all results so far written; the first error of any thread is then raised,
    UserError for options that do not go together. Ctrl-C and SIGTERM are no error: the facts say `interrupted`. When the work
    on a frame does not end then, the process does: what was written is completed, the exit code is 130.
    """
    classes = segmenter.engine.spec.classes
    tallies = [Tally(stream.source, classes) for stream in streams]
    pace, interrupted = Pace(max_fps), False
    started_s = time.monotonic()
    with ExitStack() as opened:
        opened.callback(_close, [stream.source for stream in streams])
        writers = [opened.enter_context(writer_for(stream.sink, overlay)) for stream in streams]
        _check(segmenter, len(streams), max_frames)
        try:
            with last_resort(STUCK_AFTER_S, lambda: _leave(writers)), Feeds([s.source for s in streams]) as feeds:
                work = _Work(segmenter, feeds, tallies, on_frame)
                pace.wait()  # before a frame is asked for, so that a live one is new
                while there := feeds.read(within_s):
                    for index, result in work.on(there):
                        writers[index].write(result)
                        if tallies[index].frames == max_frames:
                            feeds.leave(index)
                    if any(stream.sink.stopped for stream in streams):
                        break
                    pace.wait()
        except KeyboardInterrupt:
            interrupted = True
            for writer in writers:
                writer.hurried = True
    seconds = time.monotonic() - started_s
    interrupted = interrupted or any(writer.interrupted for writer in writers)
    return [tally.facts(seconds, interrupted) for tally in tallies]


def _check(segmenter: Segmenter, streams: int, max_frames: int | None) -> None:
    if max_frames is not None and max_frames < 1:
        raise UserError(f"{max_frames} frames", "a run has at least one", "give 1 or more, or leave the limit out")
    if streams > 1 and segmenter.steady is not None:
        raise UserError(f"steadiness with {streams} sources", "looks back in one of them", "leave out one of the two")


def _leave(writers: Sequence[Writer]) -> None:
    """What is done for a run that is stuck in the network or in a window."""
    say(f"the work on a frame has not ended {STUCK_AFTER_S:g} s after Ctrl-C; leaving it, and completing what was written")
    _side_by_side(_finish, writers)


def _finish(writer: Writer) -> None:
    writer.hurried = True
    try:
        writer.finish(Noted())
    except UserError as error:
        say(f"error: {error}")


def _close(sources: Sequence[Source]) -> None:
    """All at once: one that is stuck takes its time to be left alone."""
    _side_by_side(lambda source: source.close(), sources)


def _side_by_side(do: Callable[[T], None], items: Sequence[T]) -> None:
    """Do it to each in a thread of its own, and raise the first error."""
    if items:
        with ThreadPoolExecutor(len(items)) as pool:
            list(pool.map(do, items))


class _Work:
    """Segments the frames of a round and keeps a tally of how long each step took."""

    def __init__(self, segmenter: Segmenter, feeds: Feeds, tallies: Sequence[Tally], on_frame: OnFrame | None) -> None:
        self._segmenter, self._feeds, self._tallies, self._on_frame = segmenter, feeds, tallies, on_frame
        most = segmenter.engine.most_images
        self._at_once = 1 if segmenter.strategy != PLAIN else most or len(tallies)
        self._round = 0

    def on(self, there: Sequence[tuple[int, CapturedFrame]]) -> Iterator[tuple[int, Segmented]]:
        """The results of the streams' frames, batch by batch; whose turn is first goes round."""
        first = self._round % len(there)
        self._round += 1
        turns = [*there[first:], *there[:first]]
        for at in range(0, len(turns), self._at_once):
            yield from self._together(turns[at : at + self._at_once])

    def _together(self, part: Sequence[tuple[int, CapturedFrame]]) -> list[tuple[int, Segmented]]:
        begun_s = time.monotonic()
        views = [list(self._segmenter.views(frame.pixels)) for _, frame in part]
        prepared_s = time.monotonic()
        answers = self._segmenter.infer_together([view for of_frame in views for view in of_frame])
        inferred_s = time.monotonic()
        results = []
        for (index, frame), of_frame in zip(part, views, strict=True):
            mark_s = time.monotonic()
            mask = self._segmenter.finish([answers.pop(0) for _ in of_frame])
            ended_s = time.monotonic()
            seconds = (prepared_s - begun_s, inferred_s - prepared_s, ended_s - mark_s)
            work = FrameWork(dict(zip(STAGES, seconds, strict=True)), ended_s, self._feeds.dropped(index))
            self._tallies[index].collect(frame, mask, work)
            results.append((index, Segmented(frame, mask, work=work)))
            if self._on_frame is not None:
                frames, dropped = (sum(counts) for counts in zip(*((t.frames, t.dropped) for t in self._tallies), strict=True))
                self._on_frame(frames, dropped, 1000 * seconds[1])
        return results
