"""Cameras by number or with what is asked of them, and pipelines of GStreamer; nothing here has a camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from source_contract import SourceContract

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import Source, open_source, parse_source
from dlv3deploy.video.camera import CameraSource

REAL_CAPTURE = cv2.VideoCapture


class TestCamera(SourceContract):
    """No camera in the test machine: a recording stands in for the device, everything around it is real."""

    live = True

    @pytest.fixture
    def address(self, video: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        real = cv2.VideoCapture
        monkeypatch.setattr("dlv3deploy.video.camera._check_device", lambda *_: None)
        monkeypatch.setattr(cv2, "VideoCapture", lambda device, backend: real(str(video)))
        return "camera 0"

    def test_a_camera_that_stops_is_an_error_not_an_end(self, source: Source) -> None:
        with pytest.raises(UserError, match="stopped sending after 12 frames"):
            list(iter(source.read, None))


class Capture:
    """In place of a camera's capture: it notes what is asked for, and gives what a recording has."""

    def __init__(self, video: Path) -> None:
        self.real, self.asked = REAL_CAPTURE(str(video)), list[tuple[int, float]]()

    def set(self, what: int, value: float) -> bool:
        self.asked.append((what, value))
        return True

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


def test_a_camera_is_asked_first_for_the_format_and_says_what_it_got(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = Capture(video)
    monkeypatch.setattr("dlv3deploy.video.camera._check_device", lambda *_: None)
    monkeypatch.setattr(cv2, "VideoCapture", lambda _device, _backend: capture)
    with open_source(parse_source("v4l2:///dev/video0?width=1280&fps=30&height=720&format=MJPG")):
        pass
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    assert capture.asked == [
        (cv2.CAP_PROP_FOURCC, fourcc),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 30),
    ]
    said = capsys.readouterr().err
    assert "asked for width 1280, height 720, fps 30, format MJPG" in said.replace("fps 30, height 720", "height 720, fps 30")
    assert "got width 64, height 48, fps 10" in said


@pytest.mark.parametrize("address", ["gst:videotestsrc num-buffers=5", "csi://0"])
def test_a_pipeline_says_what_it_needs_or_runs(address: str) -> None:
    """PyPI's OpenCV has no GStreamer; a distribution's has, and no Jetson's camera."""
    if "GStreamer:                   YES" not in cv2.getBuildInformation():
        with pytest.raises(UserError, match="this OpenCV was built without GStreamer"):
            open_source(parse_source(address))
    elif address.startswith("gst"):
        with open_source(parse_source(address)) as source:
            assert len(list(iter(source.read, None))) > 0
    else:
        with pytest.raises(UserError, match="the pipeline does not start"):
            open_source(parse_source(address))


def test_an_absent_camera_names_those_that_are_there() -> None:
    with pytest.raises(UserError, match=r"camera 99.*there is no /dev/video99.*this machine has"):
        open_source(parse_source("99"))


def test_a_camera_that_sends_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlv3deploy.video.camera._check_device", lambda *_: None)
    with pytest.raises(UserError, match="sends no frames"):
        CameraSource(parse_source("98"))
