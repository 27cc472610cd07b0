"""Videos as sinks: every frame is in them, and a good file is only ever replaced by a complete one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sink_contract import RECORDED, SinkContract
from video_stand_ins import CLASSES, HANG_LIMIT_S, ScriptedSource, frames_of, grey_frame, result_of

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import Sink, open_sink, open_source, parse_source
from dlv3deploy.video import growing as growing_module
from dlv3deploy.video.recording import LiveRecording, VideoRecording

HERE = Path(__file__).parent


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


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.mkv"])
def test_of_a_quiet_picture_no_more_is_lost_with_a_kill(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FFmpeg keeps it to itself for half a minute: it is asked for file after file instead."""
    program = [sys.executable, str(HERE / "end_a_recording.py"), str(tmp_path / name), "quiet"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(program, capture_output=True, text=True, timeout=HANG_LIMIT_S, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert all("partial" in path.name for path in left)
    frames = [frame for path in left for frame in frames_of(path)]
    assert len(frames) == 39  # but the one that was being written
    shades = [float(frame.mean()) for frame in frames]
    assert shades == sorted(shades)
    with open_sink(str(tmp_path / name), CLASSES, RECORDED):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert f"(and {len(left) - 1} that follow it): of a run that was killed" in line


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.mkv"])
def test_pieces_are_joined_at_the_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing_module, "MOST_HELD_S", 0.0)
    with VideoRecording(tmp_path / name, 10.0) as sink:
        for i in range(12):
            sink.write(result_of(i))
        assert len(list(tmp_path.iterdir())) > 5
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    shades = [round(float(frame.mean()) / 20) for frame in frames_of(tmp_path / name)]
    assert shades == list(range(12))


def test_pieces_that_cannot_be_joined_are_kept_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing_module, "MOST_HELD_S", 0.0)
    sink = VideoRecording(tmp_path / "out.mp4", 10.0)
    for i in range(6):
        sink.write(result_of(i))
    pieces = sorted(tmp_path.iterdir())
    monkeypatch.setattr(growing_module, "join", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no room")))
    with pytest.raises(UserError, match=rf"and {len(pieces) - 1} that follow it have what could be written"):
        sink.close()
    assert sorted(tmp_path.iterdir()) == pieces


def test_live_sources_are_recorded_in_their_own_time(tmp_path: Path) -> None:
    with open_sink(str(tmp_path / "out.mp4"), CLASSES, ScriptedSource(frames=0, live=True)) as sink:
        assert isinstance(sink, LiveRecording)
