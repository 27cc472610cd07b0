"""Several sources through one model: in batches, each its own frames and figures, none held up by another."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from video_stand_ins import (
    CLASSES,
    HANG_LIMIT_S,
    BrightnessEngine,
    GatedSource,
    HeldSink,
    ListSink,
    ScriptedSource,
    brightness_segmenter,
    grey_frame,
)

from dlv3deploy.core.engine import Batch, Outputs
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.steadiness import Steadiness
from dlv3deploy.core.strategy import Strategy
from dlv3deploy.video import CapturedFrame, Overlay, Stream, run_streams
from dlv3deploy.video.writer import RESULTS_WAITING

OVERLAY = Overlay(CLASSES)


class BatchEngine(BrightnessEngine):
    """Takes up to `most` images at once, any number by default; notes how many it was given."""

    input_shape: tuple[int | None, int, int | None, int | None] = (None, 3, 48, 64)

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most, self.sizes = most, list[int]()

    @property
    def most_images(self) -> int | None:
        return self.most

    def infer(self, batch: Batch) -> Outputs:
        self.sizes.append(len(batch))
        return np.asarray(super().infer(batch), np.float32)


class Shade(ScriptedSource):
    """Not live; every frame has one grey value, its source's."""

    def __init__(self, grey: int, frames: int, **given: Any) -> None:
        super().__init__(frames, live=False, **given)
        self.grey = grey

    def read(self) -> CapturedFrame | None:
        frame = super().read()
        return frame and CapturedFrame(grey_frame(self.grey), frame.index, frame.time_s, frame.name)


def streams_of(*sources: ScriptedSource) -> list[Stream]:
    return [Stream(source, ListSink()) for source in sources]


def results_of(stream: Stream) -> list[tuple[int, int]]:
    """Index and class of every frame that its sink was given."""
    assert isinstance(stream.sink, ListSink)
    assert stream.sink.closes == 1
    return [(result.frame.index, int(result.mask[0, 0])) for result in stream.sink.results]


def test_frames_of_all_go_through_together_and_come_back_to_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, streams = BatchEngine(), streams_of(Shade(40, 5), Shade(128, 5), Shade(215, 5))
    facts = run_streams(streams, Segmenter(engine), OVERLAY, within_s=HANG_LIMIT_S)
    assert [results_of(stream) for stream in streams] == [[(i, shade) for i in range(5)] for shade in range(3)]
    assert engine.sizes == [3] * 5
    assert [each.frames for each in facts] == [5, 5, 5]


def test_what_an_engine_does_not_take_at_once_goes_in_parts_and_whose_turn_is_first_goes_round() -> None:
    engine, order = BatchEngine(most=2), list[int]()

    class Noting(ListSink):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.wants_calling_thread, self.number = True, number

        def write(self, result: Any) -> None:
            order.append(self.number)
            super().write(result)

    streams = [Stream(Shade(grey, 6), Noting(number)) for number, grey in enumerate((40, 128, 215))]
    run_streams(streams, Segmenter(engine), OVERLAY, within_s=HANG_LIMIT_S)
    assert engine.sizes == [2, 1] * 6
    assert [order[3 * i] for i in range(6)] == [0, 1, 2, 0, 1, 2]
    assert [results_of(stream) for stream in streams] == [[(i, shade) for i in range(6)] for shade in range(3)]


def test_an_engine_of_one_image_serves_several_all_the_same() -> None:
    streams = streams_of(Shade(40, 3), Shade(215, 4))
    facts = run_streams(streams, brightness_segmenter(), OVERLAY)
    assert [results_of(stream) for stream in streams] == [[(i, 0) for i in range(3)], [(i, 2) for i in range(4)]]
    assert [each.frames for each in facts] == [3, 4]


def test_one_that_sends_nothing_does_not_hold_up_the_others() -> None:
    """The gated camera captures only after the other one is done."""
    gated, quick, done = GatedSource(), Shade(128, 20), threading.Event()

    class Last(ListSink):
        def write(self, result: Any) -> None:
            super().write(result)
            if result.frame.index == 19:
                done.set()

    quick_stream, gated_stream = Stream(quick, Last()), Stream(gated, ListSink())
    run = threading.Thread(
        target=run_streams, args=([gated_stream, quick_stream], Segmenter(BatchEngine()), OVERLAY), kwargs={"within_s": 0.001}
    )
    run.start()
    assert done.wait(HANG_LIMIT_S)
    assert not gated_stream.sink.results  # type: ignore[attr-defined]  # it is a ListSink
    gated.let_through(1)
    gated.close()
    run.join(HANG_LIMIT_S)
    assert [index for index, _ in results_of(quick_stream)] == list(range(20))
    assert len(results_of(gated_stream)) == 1


def test_a_sink_that_is_slow_holds_up_its_own_stream_alone() -> None:
    held = HeldSink()
    count = 5 * RESULTS_WAITING

    class Freeing(ListSink):
        """Lets the other go on once it has all of its own."""

        def write(self, result: Any) -> None:
            super().write(result)
            if len(self.results) == count:
                held.may.set()

    free = Freeing()
    streams = [Stream(Shade(10, count), held), Stream(Shade(200, count), free)]
    facts = run_streams(streams, brightness_segmenter(), OVERLAY)
    assert [each.frames for each in facts] == [count, count] == [len(held.results), len(free.results)]
    assert [result.frame.index for result in held.results] == list(range(count))


def test_a_live_source_whose_sink_is_slow_gives_its_newest_frame_when_there_is_room() -> None:
    held = HeldSink()
    source = GatedSource()
    run: list[Any] = []
    thread = threading.Thread(target=lambda: run.extend(run_streams([Stream(source, held)], brightness_segmenter(), OVERLAY)))
    thread.start()
    source.let_through(3 * RESULTS_WAITING)
    held.may.set()
    source.close()
    thread.join(HANG_LIMIT_S)
    assert not thread.is_alive() and run[0].frames + run[0].dropped == 3 * RESULTS_WAITING
    assert held.results[-1].frame.index == 3 * RESULTS_WAITING - 1


def test_the_rate_of_one_is_until_its_last_frame() -> None:
    """Not until the last of another, which comes long after."""
    streams = [Stream(Shade(10, 2), ListSink()), Stream(Shade(200, 12, every_s=0.1), ListSink())]
    short, long = run_streams(streams, brightness_segmenter(), OVERLAY)
    assert short.seconds < long.seconds and short.frames_per_second > short.frames / long.seconds


def test_each_has_its_limit_and_its_own_figures() -> None:
    streams = streams_of(Shade(40, 100), Shade(215, 4))
    streams[1].source.failed = 7
    facts = run_streams(streams, Segmenter(BatchEngine()), OVERLAY, max_frames=9)
    assert [each.frames for each in facts] == [9, 4]
    assert [each.failed for each in facts] == [0, 7]
    assert all(each.latency_ms is not None for each in facts)


def test_an_error_of_one_ends_all_with_what_was_done_kept() -> None:
    error = UserError("camera 1", "was unplugged", "plug it in")
    streams = streams_of(Shade(40, 10**9), Shade(215, 3, error=error))
    with pytest.raises(UserError, match="was unplugged"):
        run_streams(streams, Segmenter(BatchEngine()), OVERLAY)
    assert len(results_of(streams[1])) == 3 and results_of(streams[0])
    assert all(stream.source.closed.is_set() for stream in streams)  # type: ignore[attr-defined]  # a ScriptedSource


def test_an_error_of_a_sink_ends_all_though_its_own_source_has_ended() -> None:
    """And the other one sends nothing, as a camera that is away."""
    away = GatedSource()
    failing = ListSink(fails_at=2, error=UserError("out.mp4", "the disk is full", "make room"))
    streams = [Stream(Shade(10, 3), failing), Stream(away, ListSink())]
    with pytest.raises(UserError, match="the disk is full"):
        run_streams(streams, brightness_segmenter(), OVERLAY)


def test_frames_of_one_are_not_lost_by_the_error_of_another() -> None:
    """Also those that were read in the round in which the other one failed."""
    kept = ListSink()
    failing = Shade(200, 3, error=UserError("the camera", "burned", "buy one"))
    with pytest.raises(UserError, match="burned"):
        run_streams(
            [Stream(Shade(10, 4), kept), Stream(failing, ListSink())], brightness_segmenter(), OVERLAY, within_s=HANG_LIMIT_S
        )
    assert [result.frame.index for result in kept.results] == list(range(4))


def test_one_that_hangs_is_named_though_the_others_go_on() -> None:
    hanging = ScriptedSource(frames=0, blocks=True)
    hanging.silence_s = 0.2
    streams = streams_of(Shade(40, 10**9, every_s=0.005), hanging)
    with pytest.raises(UserError, match="does not answer"):
        run_streams(streams, Segmenter(BatchEngine()), OVERLAY)


def test_sources_are_closed_side_by_side_so_that_stuck_ones_do_not_add_up() -> None:
    together = threading.Barrier(4, timeout=HANG_LIMIT_S)

    class Stuck(Shade):
        def close(self) -> None:
            together.wait()  # breaks when one is closed only after another one is done
            super().close()

    streams = streams_of(*(Stuck(40, 2) for _ in range(4)))
    run_streams(streams, Segmenter(BatchEngine()), OVERLAY)
    assert all(len(results_of(stream)) == 2 for stream in streams)


def test_strategies_see_each_frame_by_itself() -> None:
    engine, streams = BatchEngine(), streams_of(Shade(40, 2), Shade(215, 2))
    run_streams(streams, Segmenter(engine, strategy=Strategy((1.0,), flip=True)), OVERLAY)
    assert set(engine.sizes) == {1} and len(engine.sizes) == 8
    assert [results_of(stream) for stream in streams] == [[(0, 0), (1, 0)], [(0, 2), (1, 2)]]


def test_steadiness_looks_back_in_one_stream_only() -> None:
    streams = streams_of(Shade(40, 2), Shade(215, 2))
    with pytest.raises(UserError, match="looks back in one of them"):
        run_streams(streams, Segmenter(BatchEngine(), steadiness=Steadiness(0.5)), OVERLAY)
    assert all(stream.sink.closes == 1 for stream in streams)  # type: ignore[attr-defined]  # a ListSink
