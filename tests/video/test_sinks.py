"""What every sink promises, and that a good file is only ever replaced by a complete one."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_stand_ins import CLASSES, HANG_LIMIT_S, ListSink, ScriptedSource, frames_of, grey_frame, result_of, write_video

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import read_frame, read_label, write_frame
from dlv3deploy.video import Sink, Tee, open_sink, open_sinks, open_source, parse_source
from dlv3deploy.video import growing as growing_module
from dlv3deploy.video.recording import LiveRecording, VideoRecording
from dlv3deploy.video.sink import FrameWork

HERE = Path(__file__).parent
RECORDED = ScriptedSource(frames=0, live=False)


class SinkContract:
    """Inherited by every kind of sink; a subclass names it in `text`, below `tmp_path`."""

    text: str
    holds = 4  # results that it is given

    @pytest.fixture
    def sink(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
        monkeypatch.chdir(tmp_path)
        with open_sink(self.text, CLASSES, RECORDED) as sink:
            yield sink

    def test_it_takes_results_and_closes_twice(self, sink: Sink) -> None:
        for i in range(self.holds):
            sink.write(result_of(i))
        sink.close()
        sink.close()

    def test_it_closes_without_a_result(self, sink: Sink) -> None:
        sink.close()

    def test_it_does_not_ask_for_the_end_by_itself(self, sink: Sink) -> None:
        sink.write(result_of(0))
        assert not sink.stopped

    def test_it_leaves_no_temporary_file(self, sink: Sink, tmp_path: Path) -> None:
        sink.write(result_of(0))
        sink.close()
        assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


class TestJsonLines(SinkContract):
    text = "results/run.jsonl"

    def test_a_line_says_when_the_frame_was_captured_and_what_is_in_it(self, sink: Sink, tmp_path: Path) -> None:
        mask = np.zeros((48, 64), np.uint8)
        mask[:12] = 2
        stages = {"preprocessing": 0.001, "inference": 0.01, "postprocessing": 0.002}
        captured_s = time.monotonic()
        result = replace(result_of(7, mask=mask, time_s=captured_s), work=FrameWork(stages, captured_s + 0.02))
        sink.write(result)
        (line,) = (tmp_path / self.text).read_text(encoding="utf-8").splitlines()  # before it is closed
        found = json.loads(line)
        assert (found["frame"], found["name"]) == (7, "frame_000007")
        assert found["time"] == pytest.approx(time.time(), abs=60)
        assert found["delay_ms"] == pytest.approx(20) and found["stages_ms"]["inference"] == pytest.approx(10)
        assert found["shares"] == {"dark": 0.75, "bright": 0.25}

    def test_an_earlier_run_s_file_stays_until_there_is_a_frame(self, sink: Sink, tmp_path: Path) -> None:
        sink.write(result_of(0))
        sink.close()
        before = (tmp_path / self.text).read_text()
        with open_sink(self.text, CLASSES, RECORDED) as again:
            assert (tmp_path / self.text).read_text() == before
            again.write(result_of(5))
            again.write(result_of(6))
        assert [json.loads(line)["frame"] for line in (tmp_path / self.text).read_text().splitlines()] == [5, 6]

    def test_what_no_run_wrote_stays(self, sink: Sink, tmp_path: Path) -> None:
        sink.close()
        assert not (tmp_path / self.text).exists()  # no frame came, and there was none before
        for text in ('{"frame": 1}\n', "notes\n", "[1]\n"):
            (tmp_path / "other.jsonl").write_text(text)
            with pytest.raises(UserError, match="was not written by a run"):
                open_sink(str(tmp_path / "other.jsonl"), CLASSES, RECORDED)
            assert (tmp_path / "other.jsonl").read_text() == text


class TestNone(SinkContract):
    text = "none"

    def test_it_costs_no_overlay(self, sink: Sink) -> None:
        assert not sink.wants_overlay


class TestMaskFolder(SinkContract):
    text = "masks/"

    def test_it_costs_no_overlay(self, sink: Sink) -> None:
        assert not sink.wants_overlay

    def test_a_mask_reads_back_as_it_was_in_the_classes_colours(self, sink: Sink, tmp_path: Path) -> None:
        mask = (np.arange(48 * 64) % 3).astype(np.uint8).reshape(48, 64)
        sink.write(result_of(7, mask=mask))
        path = tmp_path / "masks" / "frame_000007.png"
        assert np.array_equal(read_label(path), mask)
        with Image.open(path) as image:
            assert image.mode == "P"
            assert image.convert("RGB").getpixel((1, 0)) == CLASSES.palette[1]


class TestOverlayFolder(SinkContract):
    text = "shown/*.jpg"

    def test_a_picture_is_the_frame_with_its_classes(self, sink: Sink, tmp_path: Path) -> None:
        assert sink.wants_overlay
        picture = grey_frame(90)
        picture[:, :, 2] = 200
        sink.write(replace(result_of(7), picture=picture))
        assert np.abs(read_frame(tmp_path / "shown" / "frame_000007.jpg").astype(int) - picture).mean() < 3

    def test_an_earlier_run_s_is_replaced_any_other_stays(self, sink: Sink, tmp_path: Path) -> None:
        path = tmp_path / "shown" / "frame_000000.jpg"
        for value in (10, 200):
            sink.write(replace(result_of(0), picture=grey_frame(value)))
            assert abs(float(read_frame(path).mean()) - value) < 3
        write_frame(path, grey_frame(50))
        with pytest.raises(UserError, match="was not written so by a run"):
            sink.write(result_of(0))
        assert abs(float(read_frame(path).mean()) - 50) < 3

    def test_masks_and_pictures_of_one_name_are_kept_apart(self, sink: Sink, tmp_path: Path) -> None:
        with open_sink("shown/", CLASSES, RECORDED) as masks, open_sink("shown/*.png", CLASSES, RECORDED) as pictures:
            masks.write(result_of(0))
            with pytest.raises(UserError, match="was not written so by a run"):
                pictures.write(result_of(0))
        assert read_label(tmp_path / "shown" / "frame_000000.png").max() == 0
        sink.close()


class TestPicture(SinkContract):
    text = "overlay.png"
    holds = 1

    def test_it_holds_one_frame_only(self, sink: Sink) -> None:
        sink.write(result_of(0))
        with pytest.raises(UserError, match=r"a picture holds one frame.*\.mp4"):
            sink.write(result_of(1))


class RecordingContract(SinkContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / self.text

    def test_it_holds_every_frame(self, sink: Sink, path: Path) -> None:
        for i in range(12):
            sink.write(result_of(i))
        sink.close()
        found = frames_of(path)
        assert len(found) == 12
        assert all(abs(float(frame.mean()) - 20 * i) < 6 for i, frame in enumerate(found))

    def test_one_frame_is_enough(self, sink: Sink, path: Path) -> None:
        sink.write(result_of(0))
        sink.close()
        assert len(frames_of(path)) == 1

    def test_frames_of_another_size_are_letterboxed(self, sink: Sink, path: Path) -> None:
        sink.write(result_of(0, grey_frame(200, 48, 64)))
        sink.write(result_of(1, grey_frame(200, 96, 64)))
        sink.close()
        second = frames_of(path)[1]
        assert second.shape == (48, 64, 3)
        assert second[24, 32].mean() > 180
        assert second[24, 2].mean() < 40

    def test_odd_sizes_lose_a_row_and_a_column(self, sink: Sink, path: Path) -> None:
        for i in range(3):
            sink.write(result_of(i, grey_frame(90, 47, 63)))
        sink.close()
        assert {frame.shape for frame in frames_of(path)} == {(46, 62, 3)}

    def test_the_old_file_stays_until_the_new_one_is_complete(self, sink: Sink, path: Path) -> None:
        path.write_bytes(b"the old file")
        sink.write(result_of(0))
        assert path.read_bytes() == b"the old file"
        sink.close()
        assert len(frames_of(path)) == 1

    def test_without_a_frame_the_old_file_stays(self, sink: Sink, path: Path) -> None:
        path.write_bytes(b"the old file")
        sink.close()
        assert path.read_bytes() == b"the old file"


class TestMp4(RecordingContract):
    text = "out.mp4"


class TestAvi(RecordingContract):
    text = "out.avi"


class TestMkv(RecordingContract):
    text = "deep/er/out.mkv"

    @pytest.fixture
    def sink(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
        monkeypatch.chdir(tmp_path)
        with open_sink(self.text, CLASSES, RECORDED) as sink:
            yield sink


@pytest.mark.parametrize("fps", [12.5, 23.976, 29.97, 60.0])
def test_a_recording_keeps_the_rate_of_its_source(fps: float, tmp_path: Path) -> None:
    with VideoRecording(tmp_path / "out.mp4", fps) as sink:
        for i in range(10):
            sink.write(result_of(i))
    with open_source(parse_source(str(tmp_path / "out.mp4"))) as written:
        assert written.fps == pytest.approx(fps, rel=1e-3)
        assert written.frame_count == 10


def test_a_live_recording_shows_each_frame_until_the_next(tmp_path: Path) -> None:
    captured_s = [5.0, 5.11, 5.19, 5.5, 5.52, 6.0]  # at 10 frames a second: slots 0, 1, 2, 5, 5 again, 10
    with LiveRecording(tmp_path / "out.avi", 10.0) as sink:
        for i, time_s in enumerate(captured_s):
            sink.write(result_of(i, grey_frame(40 * i), time_s=time_s))
    shown = [round(float(frame.mean()) / 40) for frame in frames_of(tmp_path / "out.avi")]
    assert shown == [0, 1, 2, 2, 2, 4, 4, 4, 4, 4, 5]


def test_a_live_recording_cuts_long_gaps(tmp_path: Path) -> None:
    with LiveRecording(tmp_path / "out.avi", 1.0) as sink:
        for i, time_s in enumerate([0.0, 1.0, 5000.0, 5001.0]):
            sink.write(result_of(i, time_s=time_s))
    assert len(frames_of(tmp_path / "out.avi")) == 1 + 10 + 1 + 1


def test_fewer_frames_than_were_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"the old file")
    sink = VideoRecording(path, 10.0)
    for i in range(5):
        sink.write(result_of(i))
    monkeypatch.setattr(growing_module, "frames_in", lambda _: 3)
    with pytest.raises(UserError, match=r"holds 3 of the 5 frames.*disk or quota is full.*unchanged"):
        sink.close()
    assert path.read_bytes() == b"the old file"
    (left,) = tmp_path.glob("out.*.partial.mkv")
    assert len(frames_of(left)) == 5


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.mkv"])
def test_a_recording_that_cannot_be_put_in_its_place_is_kept_and_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = VideoRecording(tmp_path / name, 10.0)
    for i in range(5):
        sink.write(result_of(i))

    def full(_: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="has what could be written") as caught:
        sink.close()
    (left,) = tmp_path.iterdir()
    assert str(left) in str(caught.value) and len(frames_of(left)) == 5


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.mkv", "masks/"])
def test_a_full_disk_is_an_error_and_the_old_file_stays(name: str, tmp_path: Path) -> None:
    """The kernel itself ends every write beyond a limit, in a process of its own."""
    old = tmp_path / name
    if not name.endswith("/"):
        old.write_bytes(b"the old file")
    program = [sys.executable, str(HERE / "end_a_recording.py"), str(tmp_path / name) + "/" * name.endswith("/")]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(program, capture_output=True, text=True, timeout=HANG_LIMIT_S, check=False, env=environment)
    assert done.returncode == 1, done.stderr
    assert "disk or quota is full" in done.stdout
    assert done.stderr == ""
    if not name.endswith("/"):
        assert old.read_bytes() == b"the old file"
        (left,) = set(tmp_path.iterdir()) - {old}
        assert str(left) in done.stdout


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.mkv"])
def test_what_a_killed_run_recorded_plays_and_the_next_run_says_where_it_is(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"the old file")
    program = [sys.executable, str(HERE / "end_a_recording.py"), str(tmp_path / name), "killed"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(program, capture_output=True, text=True, timeout=HANG_LIMIT_S, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = tmp_path.glob("out.*.partial.*")
    assert len(frames_of(left)) >= 20  # of 40; what the container had not given to the system yet is lost
    assert (tmp_path / name).read_bytes() == b"the old file"
    with open_sink(str(tmp_path / name), CLASSES, RECORDED) as again:
        again.write(result_of(0))
    assert f"{left}: of a run that was killed" in capsys.readouterr().err
    assert left.exists() and len(frames_of(tmp_path / name)) == 1


@pytest.mark.parametrize("text", ["out.webm", "out.mpeg", "out.txt", "masks.v2", "", "rtsp://host/x"])
def test_what_names_no_sink_is_told_what_works(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        open_sink(text, CLASSES, RECORDED)
    assert all(word in caught.value.remedy for word in ("none", "window", ".mp4", ".avi", ".mkv", "folder"))


def test_a_sink_where_nothing_can_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for text in ("out.mp4", "masks/"):
        with pytest.raises(UserError, match="could not be written"):
            open_sink(str(tmp_path / "file" / text) + "/" * text.endswith("/"), CLASSES, RECORDED)


def test_a_sink_that_would_overwrite_its_source_is_refused(tmp_path: Path, video: Path) -> None:
    with open_source(parse_source(str(video))) as source:
        for text in (str(video), f"{tmp_path}/../{tmp_path.name}/clip.mp4", str(tmp_path)):
            with pytest.raises(UserError, match="what the source reads"):
                open_sink(text, CLASSES, source)


def test_live_sources_are_recorded_in_their_own_time(tmp_path: Path) -> None:
    with open_sink(str(tmp_path / "out.mp4"), CLASSES, ScriptedSource(frames=0, live=True)) as sink:
        assert isinstance(sink, LiveRecording)


def test_a_tee_gives_every_result_to_each_and_wants_what_any_wants() -> None:
    first, second = ListSink(), ListSink(wants_overlay=True, stop_at=2)
    with Tee([first, second]) as tee:
        assert tee.wants_overlay
        stopped = []
        for i in range(2):
            tee.write(result_of(i))
            stopped.append(tee.stopped)
    assert stopped == [False, True]
    assert len(first.results) == len(second.results) == 2
    assert first.closes == second.closes == 1


def test_a_tee_closes_all_though_one_cannot() -> None:
    class Broken(ListSink):
        def close(self) -> None:
            raise UserError("it", "cannot be closed", "try again")

    first, last = ListSink(), ListSink()
    with pytest.raises(UserError, match="cannot be closed"):
        Tee([first, Broken(), last]).close()
    assert first.closes == last.closes == 1


def test_of_several_sinks_none_stays_open_when_one_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="webm"):
        open_sinks([str(tmp_path / "a.mp4"), str(tmp_path / "b.webm")], CLASSES, RECORDED)
    assert list(tmp_path.iterdir()) == []


def test_several_sinks_are_written_together(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=1)
    with open_sinks([str(tmp_path / "a.mp4"), f"{tmp_path}/masks/"], CLASSES, RECORDED) as sink:
        for i in range(3):
            sink.write(result_of(i))
    assert len(frames_of(tmp_path / "a.mp4")) == 3
    assert len(list((tmp_path / "masks").iterdir())) == 3
