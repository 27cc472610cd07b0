"""A run delivers what it should, ends for every reason it can, and always closes what it was given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from video_stand_ins import (
    CLASSES,
    HANG_LIMIT_S,
    BrightnessEngine,
    GatedSource,
    ListSink,
    MjpegServer,
    ScriptedSource,
    brightness_segmenter,
    frames_of,
    grey_frame,
    result_of,
)

from dlv3deploy.core.engine import Batch, Outputs
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.images import read_label, write_frame
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import ModelSpec, OutputSpec
from dlv3deploy.core.strategy import Strategy
from dlv3deploy.scenes import ROAD_SCENE, Drive
from dlv3deploy.video import Overlay, RunFacts, Sink, Source, ThinnedSource, open_sink, open_source, parse_source, run_pipeline
from dlv3deploy.video.pace import Pace
from dlv3deploy.video.prefetch import Prefetch
from dlv3deploy.video.sink import NullSink
from dlv3deploy.video.writer import RESULTS_WAITING, QueuedWriter

ROOT = Path(__file__).parents[2]


def run(source: Source, sink: Sink, segmenter: Segmenter | None = None, max_frames: int | None = None) -> RunFacts:
    return run_pipeline(source, segmenter or brightness_segmenter(), sink, Overlay(CLASSES), max_frames=max_frames)


def test_every_frame_of_a_recording_gets_its_mask_in_order(video: Path, segmenter: Segmenter) -> None:
    sink = ListSink(seconds=0.005)
    facts = run(open_source(parse_source(str(video))), sink, segmenter)
    assert [result.frame.index for result in sink.results] == list(range(12))
    for result, frame in zip(sink.results, frames_of(video), strict=True):
        assert np.array_equal(result.mask, segmenter(frame))
    assert (facts.frames, facts.dropped, facts.interrupted) == (12, 0, False)
    assert sink.closes == 1


def test_a_strategy_holds_in_a_run_and_its_times_are_of_all_views(video: Path) -> None:
    sink, segmenter = ListSink(), Segmenter(BrightnessEngine(0.002), strategy=Strategy((1.0, 1.5), flip=True))
    facts = run(open_source(parse_source(str(video))), sink, segmenter, max_frames=3)
    for result, frame in zip(sink.results, frames_of(video), strict=False):
        assert np.array_equal(result.mask, segmenter(frame))
    assert len(sink.results) == 3
    assert facts.latency_ms is not None
    assert facts.latency_ms.p50 >= 2 * (2 + 2 * 4), "one window at scale 1, four at 1.5, all mirrored too"


def test_of_a_live_source_frames_are_dropped_rather_than_queued() -> None:
    source, sink = GatedSource(), ListSink()
    captured = (1, 4, 1, 3)
    steps = iter(captured)

    class Scheduled(BrightnessEngine):
        def infer(self, batch: Batch) -> Outputs:
            source.let_through(next(steps, 0))
            return super().infer(batch)

    first = threading.Thread(target=source.let_through, args=(1,))
    first.start()
    facts = run(source, sink, Segmenter(Scheduled()), max_frames=5)
    assert [result.frame.index for result in sink.results] == [0, 1, 5, 6, 9]
    assert facts.dropped == 5
    assert facts.delay_ms is not None


def test_masks_of_a_folder_carry_the_names_of_its_pictures(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, value in (("night", 20), ("day", 230)):
        write_frame(tmp_path / "in" / f"{name}.png", grey_frame(value))
    source = open_source(parse_source(str(tmp_path / "in")))
    run(source, open_sink(str(tmp_path / "out/"), CLASSES, source))
    masks = {path.name: int(read_label(path)[0, 0]) for path in (tmp_path / "out").iterdir()}
    assert masks == {"night.png": 0, "day.png": 2}


def test_the_overlay_is_drawn_only_for_a_sink_that_shows_it(video: Path) -> None:
    shows, hides = ListSink(wants_overlay=True), ListSink()
    for sink in (shows, hides):
        run(open_source(parse_source(str(video))), sink)
    assert all(result.picture is None for result in hides.results)
    for result in shows.results:
        expected = Overlay(CLASSES)(result.frame.pixels, result.mask)
        assert result.picture is not None
        assert np.array_equal(result.picture, expected)


def test_a_video_becomes_a_video_of_the_same_length(video: Path, tmp_path: Path) -> None:
    source = open_source(parse_source(str(video)))
    run(source, open_sink(str(tmp_path / "out.mp4"), CLASSES, source))
    assert len(frames_of(tmp_path / "out.mp4")) == 12


def test_an_mjpeg_stream_can_be_recorded(mjpeg: MjpegServer, tmp_path: Path) -> None:
    source = open_source(parse_source(f"{mjpeg.url}/camera#reconnect=0"))
    facts = run(source, open_sink(str(tmp_path / "out.mp4"), CLASSES, source))
    assert 1 <= facts.frames <= MjpegServer.frames
    assert facts.frames + facts.dropped == MjpegServer.frames
    assert frames_of(tmp_path / "out.mp4")


@pytest.mark.parametrize(("every", "kept"), [(1, 12), (5, 3), (11, 2), (12, 1), (50, 1)])
def test_every_so_many_th_frame_keeps_its_index_and_the_video_its_length(video: Path, every: int, kept: int) -> None:
    source = ThinnedSource(open_source(parse_source(str(video))), every)
    assert source.frame_count == kept and source.fps == pytest.approx(10 / every)
    sink = ListSink()
    assert run(source, sink).dropped == 0
    assert [result.frame.index for result in sink.results] == list(range(0, 12, every))


def test_a_thinned_live_source_is_drained_and_closed() -> None:
    inner = ScriptedSource(20)
    with ThinnedSource(inner, 4) as source:
        assert source.live
        indices = []
        while (frame := source.read()) is not None:
            indices.append(frame.index)
    assert indices == [0, 4, 8, 12, 16]
    assert inner.closed.is_set()


class Clock:
    """In place of the module `time`: it goes on when someone sleeps."""

    def __init__(self) -> None:
        self.now_s, self.slept = 100.0, list[float]()

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def test_pace_keeps_a_gap_and_makes_up_for_no_lost_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("dlv3deploy.video.pace.time", clock)
    pace = Pace(4.0)
    pace.wait()
    clock.now_s += 0.1
    pace.wait()
    assert clock.slept == [pytest.approx(0.15)]
    clock.now_s += 0.7  # late: the next ones are not hurried
    pace.wait()
    pace.wait()
    assert clock.slept[1:] == [pytest.approx(0.25)]


def test_a_frame_is_asked_for_when_it_is_its_turn_and_not_before(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    events: list[str] = []
    read = Prefetch.read
    monkeypatch.setattr(Pace, "wait", lambda _self: events.append("turn"))
    monkeypatch.setattr(Prefetch, "read", lambda self: (events.append("read"), read(self))[1])
    run(open_source(parse_source(str(video))), ListSink())
    assert events == ["turn", "read"] * 13  # twelve frames and the end


def test_max_frames_ends_a_run_that_would_not_end() -> None:
    source, sink = ScriptedSource(frames=10**9), ListSink()
    assert run(source, sink, max_frames=3).frames == len(sink.results) == 3
    assert source.closed.is_set()


def test_a_sink_can_end_a_run() -> None:
    sink = ListSink(stop_at=2)
    facts = run(ScriptedSource(frames=10**9, every_s=0.005), sink)
    assert facts.frames >= 2
    assert not facts.interrupted


def test_a_sink_that_wants_the_calling_thread_gets_it(video: Path) -> None:
    sink = ListSink()
    sink.wants_calling_thread = True
    run(open_source(parse_source(str(video))), sink)
    assert sink.threads == {threading.get_ident()}
    assert sink.closes == 1


@pytest.mark.parametrize("error", [UserError("the sink", "is full", "empty it"), RuntimeError("a mistake in the program")])
def test_an_error_of_the_sink_ends_the_run_as_itself(error: Exception) -> None:
    source, sink = ScriptedSource(frames=10**9), ListSink(fails_at=2, error=error)
    with pytest.raises(type(error)) as caught:
        run(source, sink)
    assert caught.value is error
    assert sink.closes == 1
    assert source.closed.is_set()


@pytest.mark.parametrize("live", [True, False])
def test_an_error_of_the_source_ends_the_run_after_the_frames_before_it(live: bool) -> None:
    error = UserError("the camera", "was unplugged", "plug it in")
    sink = ListSink()
    with pytest.raises(UserError) as caught:
        run(ScriptedSource(frames=3, every_s=0.05, live=live, error=error), sink)
    assert caught.value is error
    assert sink.results[-1].frame.index == 2
    assert sink.closes == 1


def test_an_error_of_the_model_keeps_the_file_that_was_there(video: Path, tmp_path: Path) -> None:
    class Broken(BrightnessEngine):
        def infer(self, batch: Batch) -> Outputs:
            return super().infer(batch) * np.float32(np.nan)

    (tmp_path / "out.mp4").write_bytes(b"the old file")
    source = open_source(parse_source(str(video)))
    with pytest.raises(CheckFailed, match="not finite"):
        run(source, open_sink(str(tmp_path / "out.mp4"), CLASSES, source), Segmenter(Broken()))
    assert (tmp_path / "out.mp4").read_bytes() == b"the old file"


def test_of_two_errors_the_first_is_the_one_that_is_raised() -> None:
    class CannotClose(ListSink):
        def close(self) -> None:
            raise UserError("the sink", "cannot be closed", "try again")

    with pytest.raises(UserError, match="was unplugged"):
        run(ScriptedSource(frames=1, error=UserError("the camera", "was unplugged", "plug it in")), CannotClose())


def test_fewer_than_one_frame_is_refused() -> None:
    sink = ListSink()
    with pytest.raises(UserError, match="at least one"):
        run(ScriptedSource(frames=3), sink, max_frames=0)
    assert sink.closes == 1


def test_results_do_not_pile_up_before_a_slow_sink() -> None:
    let_go = threading.Event()

    class Stuck(ListSink):
        def write(self, result: object) -> None:
            let_go.wait(HANG_LIMIT_S)

    accepted = 0
    with QueuedWriter(Stuck(), Overlay(CLASSES)) as writer:

        def produce() -> None:
            nonlocal accepted
            for i in range(20):
                writer.write(result_of(i))
                accepted += 1

        producer = threading.Thread(target=produce)
        producer.start()
        time.sleep(0.1)
        assert accepted <= RESULTS_WAITING + 1
        let_go.set()
        producer.join(HANG_LIMIT_S)
    assert accepted == 20


def test_a_source_that_knows_the_truth_scores_the_model() -> None:
    """A model that is told each frame's true mask, and one that is told another's."""
    address = parse_source("test://2?size=48x64&fps=2&seconds=2")
    for shift, expected in ((0, 1.0), (1, None)):
        segmenter = Segmenter(TruthEngine(shift))
        facts = run_pipeline(open_source(address), segmenter, NullSink(), Overlay(ROAD_SCENE))
        assert facts.miou is not None and facts.frames == 4
        assert facts.miou == expected or (expected is None and facts.miou < 0.9)
        assert f"mIoU {facts.miou:.3f} against the true masks" in facts.summary()


def test_a_model_of_other_classes_is_not_scored() -> None:
    facts = run(open_source(parse_source("test://2?size=48x64&fps=2&seconds=1")), ListSink())
    assert facts.frames == 2 and facts.miou is None


class TruthEngine(BrightnessEngine):
    """In place of a network: the true mask of a drawn frame, moved to the right by `shift` pixels."""

    spec = ModelSpec(ROAD_SCENE, BrightnessEngine.spec.input, OutputSpec("mask"))

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift, self.frames = shift, 0

    def infer(self, batch: Batch) -> Outputs:
        del batch
        _, truth = Drive(2, 48, 64).at(self.frames / 2)
        self.frames += 1
        return np.roll(truth, self.shift, axis=1)[None].astype(np.int64)


def test_the_facts_are_complete_and_become_json(video: Path) -> None:
    facts = run(open_source(parse_source(str(video))), ListSink(), brightness_segmenter(seconds=0.002))
    assert facts.latency_ms is not None
    assert 2 <= facts.latency_ms.p50 <= facts.latency_ms.p90 <= facts.latency_ms.p99
    assert facts.frames_per_second == pytest.approx(facts.frames / facts.seconds)
    assert facts.delay_ms is None
    assert json.loads(json.dumps(asdict(facts)))["latency_ms"]["p50"] == facts.latency_ms.p50
    assert facts.summary().startswith("12 frames in ")
    assert "ms p50, 0 dropped" in facts.summary()


@pytest.mark.parametrize("sink", ["out.mp4", "out.avi", "out.mkv"])
def test_ctrl_c_leaves_a_file_that_plays(sink: str, tmp_path: Path) -> None:
    (tmp_path / sink).write_bytes(b"the old file")
    program = [sys.executable, str(Path(__file__).with_name("run_until_interrupted.py")), str(tmp_path / sink)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "10 frames\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=HANG_LIMIT_S)
    assert errors == ""
    facts = json.loads(output)
    assert facts["interrupted"]
    assert facts["frames"] >= 10
    assert len(frames_of(tmp_path / sink)) in (facts["frames"], facts["frames"] - 1)  # the last one may have been cut off
    assert [path.name for path in tmp_path.iterdir()] == [sink]


def test_importing_the_package_loads_neither_opencv_nor_pillow() -> None:
    program = "import sys, dlv3deploy.video; print({'cv2', 'PIL', 'torch', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.real_data
def test_a_real_video_runs_from_end_to_end(real_videos: list[Path], tmp_path: Path) -> None:
    shortest = min(real_videos, key=lambda path: path.stat().st_size)
    source = open_source(parse_source(str(shortest)))
    facts = run(source, open_sink(str(tmp_path / "out.mp4"), CLASSES, source), max_frames=20)
    written = frames_of(tmp_path / "out.mp4")
    assert facts.frames == len(written) == 20
    assert written[0].shape[:2] == source.size
