"""Sinks that send: how they are named, and, by the system's OpenCV with GStreamer where there is one, what arrives."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from video_stand_ins import CLASSES, HANG_LIMIT_S, RtspServer, ScriptedSource, frames_of

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import open_sink
from dlv3deploy.video.broadcast import pipeline_of

cv2 = pytest.importorskip("cv2")
HERE = Path(__file__).parent
SYSTEM = "/usr/bin/python3"
SITE = f"/usr/lib/python3/dist-packages{os.pathsep}{Path(cv2.__file__).parents[1]}"  # the system's OpenCV before this one


def by_the_system(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), SITE])}
    command = [SYSTEM, str(HERE / "with_gstreamer.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_LIMIT_S, check=False, env=environment)


@pytest.fixture(scope="module")
def system() -> None:
    if not Path(SYSTEM).exists():
        pytest.skip(f"there is no {SYSTEM}")
    if (tried := by_the_system("has")).returncode:
        pytest.skip(f"{SYSTEM} has no OpenCV with GStreamer ({tried.stderr.strip()[-80:]})")


def test_pipelines_begin_with_frames_and_whole_ones_stay() -> None:
    assert pipeline_of("gst:x264enc ! fakesink")[1] == "appsrc ! queue max-size-buffers=2 ! videoconvert ! x264enc ! fakesink"
    assert pipeline_of("gst://appsrc ! fakesink")[1] == "appsrc ! fakesink"


def test_a_server_s_password_is_sent_and_not_shown() -> None:
    shown, pipeline = pipeline_of("rtsp://me:secret@media:8554/out#bitrate=900")
    assert "secret" not in shown and "me:secret@media:8554/out" in pipeline and "bitrate=900" in pipeline


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gst:", "names no pipeline"),
        ("rtsp:///out", "names no server"),
        ('rtsp://media/out" ! fakesink "', "has a quotation mark in it"),
        ("rtsp://media/out#bitrate=fast", "bitrate is 'fast'"),
        ("rtsp://media/out#codec=h265", "there is no setting 'codec'"),
    ],
)
def test_what_cannot_be_sent_to_is_told(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_sink(text, CLASSES, ScriptedSource(frames=0))


@pytest.mark.parametrize("written", ["{}", '"{}"', "=  {}"])
def test_a_pipeline_does_not_write_what_the_source_reads(tmp_path: Path, written: str) -> None:
    source = ScriptedSource(frames=0)
    source.paths = (tmp_path / "in.mp4",)
    text = f"gst:x264enc ! mp4mux ! filesink location={written.format(tmp_path / 'in.mp4').removeprefix('=')}"
    with pytest.raises(UserError, match="is what the source reads"):
        open_sink(text, CLASSES, source)


def test_without_gstreamer_it_says_where_it_is() -> None:
    if "GStreamer:                   YES" in cv2.getBuildInformation():
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(UserError, match="built without GStreamer.*python3-opencv"):
        open_sink("rtsp://media/out", CLASSES, ScriptedSource(frames=0))


@pytest.mark.usefixtures("system")
def test_a_file_s_results_go_through_a_pipeline_one_by_one(tmp_path: Path) -> None:
    target = f"gst:x264enc ! matroskamux ! filesink location={tmp_path / 'out.mkv'}"
    done = by_the_system("send", target, "recorded", ",".join("0" * 12))
    assert done.returncode == 0, done.stderr
    found = frames_of(tmp_path / "out.mkv")
    assert [round(float(frame.mean()) / 20) for frame in found] == list(range(12))
    assert found[0].shape == (48, 64, 3)


@pytest.mark.usefixtures("system")
def test_live_results_keep_their_time(tmp_path: Path) -> None:
    """At 25 frames a second: a gap is filled, what comes too early is left out."""
    target = f"gst:x264enc ! matroskamux ! filesink location={tmp_path / 'out.mkv'}"
    times_s = [0.0, 0.04, 0.2, 0.21, 0.215, 0.28]
    done = by_the_system("send", target, "live", ",".join(map(str, times_s)))
    assert done.returncode == 0, done.stderr
    shades = [round(float(frame.mean()) / 20) for frame in frames_of(tmp_path / "out.mkv")]
    assert shades == [0, 1, 1, 1, 1, 2, 5]


@pytest.mark.usefixtures("system")
def test_a_pipeline_that_does_not_start_is_an_error() -> None:
    done = by_the_system("send", "gst:nosuchelement", "live", "0,1")
    assert done.returncode == 1
    assert "the pipeline does not start" in done.stderr and "gst-launch-1.0" in done.stderr


@pytest.mark.usefixtures("system")
def test_an_rtsp_server_gets_what_is_sent(tmp_path: Path) -> None:
    if missing := RtspServer.missing():
        pytest.skip(missing)
    command = [SYSTEM, str(HERE / "rtsp_recorder.py"), str(tmp_path / "in.mkv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            times_s = ",".join(f"{number / 25:.2f}" for number in range(50))
            done = by_the_system("send", f"rtsp://127.0.0.1:{port}/in", "live", times_s)
            assert done.returncode == 0, done.stderr
            deadline_s = time.monotonic() + HANG_LIMIT_S
            while len(found := frames_of(tmp_path / "in.mkv")) < 40 and time.monotonic() < deadline_s:
                time.sleep(0.1)  # until what was sent has arrived
        finally:
            server.kill()
    assert len(found) >= 40  # of 50; the first ones go while the two agree on how
    assert found[0].shape == (48, 64, 3)


@pytest.mark.usefixtures("system")
def test_a_source_may_be_a_pipeline() -> None:
    done = by_the_system("read", "gst:videotestsrc num-buffers=9 ! video/x-raw, width=160, height=120")
    assert done.returncode == 0, done.stderr
    count, *shape = map(int, done.stdout.split())
    assert shape == [120, 160, 3] and 1 <= count <= 9  # the newest alone is kept
