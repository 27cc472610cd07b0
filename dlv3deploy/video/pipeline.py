"""From sources through a segmenter into sinks: reading, inference and writing overlap, and nothing piles up between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.interrupts import Noted, last_resort
from dlv3deploy.core.progress import say
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.video.facts import RunFacts, Tally
from dlv3deploy.video.feeds import Feeds
from dlv3deploy.video.frames import Source
from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.pace import Pace
from dlv3deploy.video.sink import Segmented, Sink
from dlv3deploy.video.work import OnFrame, Work
from dlv3deploy.video.writer import Writer, writer_for

T = TypeVar("T")

STUCK_AFTER_S = 1.0
TOGETHER_WITHIN_S = 0.01


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
    the calling thread; a device is given the next batch before the one before is read, unless `max_fps` is given or a source
    is live, whose frame would grow old meanwhile. A sink that is slower than its stream holds up that stream alone, unless it
    wants the calling thread, as a window does.

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
        changed = threading.Condition()
        writers = [opened.enter_context(writer_for(stream.sink, overlay, changed)) for stream in streams]
        _check(segmenter, len(streams), max_frames)
        opened.callback(_begin_to_finish, writers)
        try:
            with (
                last_resort(STUCK_AFTER_S, lambda: _leave(writers)),
                Feeds([s.source for s in streams], changed, partial(_check_writers, writers)) as feeds,
            ):
                is_late = max_fps is not None or any(stream.source.live for stream in streams)
                paints = [overlay.paint if stream.sink.wants_overlay else None for stream in streams]
                ahead = 0 if is_late else segmenter.overlap(2) - 1
                work = Work(segmenter, feeds, tallies, on_frame, max_frames, ahead, paints)

                def write(results: Iterable[tuple[int, Segmented]]) -> bool:
                    """Whether the user of no sink has asked for the end."""
                    for index, result in results:
                        writers[index].write(result)
                    return not any(stream.sink.stopped for stream in streams)

                def has_room(index: int) -> bool:
                    return writers[index].room > work.begun_of(index)

                pace.wait()  # before a frame is asked for, so that a live one is new
                goes_on = True
                try:
                    while goes_on and (there := feeds.read(within_s, has_room, at_once=work.has_begun)) is not None:
                        goes_on = write(work.on(there) if there else work.rest())
                        pace.wait()
                except Exception:
                    with suppress(Exception):  # the first error is what is told
                        write(work.rest())
                    raise
                write(work.rest())
        except KeyboardInterrupt:
            interrupted = True
            for writer in writers:
                writer.hurried = True
    seconds = time.monotonic() - started_s
    interrupted = interrupted or any(writer.interrupted for writer in writers)
    if len(streams) == 1:
        return [tallies[0].facts(seconds, interrupted)]
    return [tally.facts(tally.last_s - started_s if tally.last_s else seconds, interrupted) for tally in tallies]


def _check(segmenter: Segmenter, streams: int, max_frames: int | None) -> None:
    if max_frames is not None and max_frames < 1:
        raise UserError(f"{max_frames} frames", "a run has at least one", "give 1 or more, or leave the limit out")
    if streams > 1 and segmenter.steady is not None:
        raise UserError(f"steadiness with {streams} sources", "looks back in one of them", "leave out one of the two")


def _check_writers(writers: Sequence[Writer]) -> None:
    for writer in writers:
        writer.check()


def _begin_to_finish(writers: Sequence[Writer]) -> None:
    """All of them, before any is waited for: what stuck ones are given does not add up."""
    for writer in writers:
        writer.begin_to_finish()


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
