"""Servers that are dead, silent, wrong, or come back."""

from __future__ import annotations

import os

import cv2
import pytest
from video_stand_ins import MjpegServer, RtspServer, closed_port

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import open_source, parse_source
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
        StreamSource(parse_source(f"{mjpeg.url}/stall"), SHORT) as source,
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
