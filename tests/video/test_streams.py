"""Servers that are dead, silent, wrong, or come back."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import cv2
import pytest
from video_stand_ins import MjpegServer, RtspServer, brightness_segmenter, closed_port

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import Overlay, RunFacts, Segmented, Sink, Tee, open_sink, open_source, parse_source, run_pipeline
from dlv3deploy.video.backoff import Backoff
from dlv3deploy.video.stream import FFMPEG_OPTIONS, Patience, StreamSource

SHORT = Patience(open_s=1.0, read_s=1.0, return_s=1.0)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_is_not_there_is_said_to_be_missing(scheme: str) -> None:
    with pytest.raises(UserError, match="no server is reached there"):
        StreamSource(parse_source(f"{scheme}://127.0.0.1:{closed_port()}/camera"), SHORT)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_stays_silent_is_given_up(scheme: str, silent_port: int) -> None:
    with pytest.raises(UserError, match="the server is there, but sent no video within 1 s"):
        StreamSource(parse_source(f"{scheme}://127.0.0.1:{silent_port}/camera"), SHORT)


def test_a_path_that_the_server_does_not_have_is_refused(mjpeg: MjpegServer) -> None:
    with pytest.raises(UserError, match="check the path"):
        StreamSource(parse_source(f"{mjpeg.url}/other"), SHORT)


def test_a_host_that_does_not_exist_is_said_to_be_missing() -> None:
    with pytest.raises(UserError, match="no server is reached there"):
        StreamSource(parse_source("http://no-such-host.invalid/camera"), SHORT)


def test_an_mjpeg_stream_that_falls_silent_is_an_error(mjpeg: MjpegServer) -> None:
    with (
        StreamSource(parse_source(f"{mjpeg.url}/stall#reconnect=0"), SHORT) as source,
        pytest.raises(UserError, match="sent nothing for 1 s"),
    ):
        list(iter(source.read, None))


@pytest.mark.usefixtures("rtsp")
def test_an_rtsp_camera_that_comes_back_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with RtspServer() as first:
        source = StreamSource(parse_source(first.url), Patience(open_s=5.0, read_s=2.0, return_s=20.0))
        before = source.read()
    with RtspServer(first.port), source:
        while "sends again" not in capsys.readouterr().err:
            after = source.read()
        after = source.read()
    assert before is not None
    assert after is not None
    assert after.index > before.index


@pytest.mark.parametrize(("asked", "transport"), [("transport=tcp&", "tcp"), ("transport=udp&", "udp"), ("", "tcp")])
def test_transport_and_latency_of_rtsp_are_ffmpeg_s_and_leave_no_trace(
    rtsp: RtspServer, asked: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda *given: (seen.append(os.environ[FFMPEG_OPTIONS]), real(*given))[1])
    monkeypatch.setenv(FFMPEG_OPTIONS, "stimeout;1")
    with open_source(parse_source(f"{rtsp.url}#{asked}latency=50")) as source:
        assert source.read() is not None
    assert seen == [f"rtsp_transport;{transport}|max_delay;50000|fflags;nobuffer|flags;low_delay|stimeout;1"]
    assert os.environ[FFMPEG_OPTIONS] == "stimeout;1"


@pytest.mark.usefixtures("rtsp")
def test_an_rtsp_camera_that_stays_away_is_an_error() -> None:
    with RtspServer() as server:
        source = StreamSource(parse_source(server.url), Patience(open_s=5.0, read_s=1.0, return_s=1.0))
    with source, pytest.raises(UserError, match="did not come back within 1 s"):
        list(iter(source.read, None))


def run_until(enough: Callable[[StreamSource, int], bool], source: StreamSource, lines: Path) -> RunFacts:
    """The facts of a run that keeps JSON lines, ended from outside."""

    class Enough(Sink):
        def write(self, result: Segmented) -> None:
            self.stopped = enough(source, result.frame.index)

        def close(self) -> None:
            pass

    classes = brightness_segmenter().engine.spec.classes
    sink = Tee([open_sink(str(lines), classes, source), Enough()])
    return run_pipeline(source, brightness_segmenter(), sink, Overlay(classes))


def all_kept(lines: Path, facts: RunFacts) -> bool:
    """Whether every frame that was worked on is in the file, in order."""
    frames = [json.loads(line)["frame"] for line in lines.read_text().splitlines()]
    return len(frames) == facts.frames and frames == sorted(set(frames))


def test_an_mjpeg_camera_that_is_cut_off_twenty_times_goes_on_each_time(tmp_path: Path) -> None:
    with MjpegServer(cuts=20) as server:
        source = StreamSource(parse_source(f"{server.url}/camera"), Patience(open_s=5.0, read_s=2.0))
        facts = run_until(lambda source, _: source.reconnects == 20, source, tmp_path / "run.jsonl")
    assert facts.reconnects == 20
    assert all_kept(tmp_path / "run.jsonl", facts)
    assert facts.frames + facts.dropped >= 20 * MjpegServer.frames


@pytest.mark.usefixtures("rtsp")
def test_an_rtsp_server_that_is_killed_twenty_times_is_found_again_each_time(tmp_path: Path) -> None:
    with ExitStack() as servers:
        server = servers.enter_context(RtspServer())
        source = StreamSource(parse_source(server.url), Patience(open_s=5.0, read_s=2.0))
        restarts = [0]

        def enough(source: StreamSource, _: int) -> bool:
            if source.reconnects == restarts[0] < 20:  # it sends: kill it, and start another in its place
                restarts[0] += 1
                servers.close()
                servers.enter_context(RtspServer(server.port))
            return source.reconnects == 20

        facts = run_until(enough, source, tmp_path / "run.jsonl")
    assert facts.reconnects == 20
    assert all_kept(tmp_path / "run.jsonl", facts)


@pytest.mark.parametrize("seed", range(20))
def test_waits_grow_up_to_a_limit_and_no_two_clients_wait_alike(seed: int) -> None:
    random.seed(seed)
    first, second = ([backoff.next_s() for _ in range(12)] for backoff in (Backoff(), Backoff()))
    middles = [min(0.2 * 2**i, 10.0) for i in range(12)]
    assert all(
        0.5 * middle <= wait <= 1.5 * middle for waits in (first, second) for middle, wait in zip(middles, waits, strict=True)
    )
    assert all(a != b for a, b in zip(first, second, strict=True))
