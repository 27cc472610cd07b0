"""Pipelines of GStreamer, and the cameras on a Jetson's CSI ports, which only GStreamer reads."""

from __future__ import annotations

from dlv3deploy.core.errors import UserError
from dlv3deploy.video.decoded import DecodedSource
from dlv3deploy.video.frames import CapturedFrame
from dlv3deploy.video.quiet import silence_opencv
from dlv3deploy.video.settings import Settings
from dlv3deploy.video.source import SourceAddress

SINK = "appsink drop=true max-buffers=1 sync=false"
TO_BGR = "videoconvert ! video/x-raw, format=BGR"
WIDTH, HEIGHT, FPS = "1280", "720", "30"


class GStreamerSource(DecodedSource):
    """Raises UserError where OpenCV was built without GStreamer, and for a pipeline that does not start or sends nothing."""

    live = True

    def __init__(self, address: SourceAddress) -> None:
        silence_opencv()
        import cv2

        super().__init__("stream")
        self._text = address.text
        require_gstreamer(address.text)
        pipeline = of_csi(address.device, address.settings) if address.kind == "csi" else whole_pipeline(address.url)
        if not self._begin(cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)):
            rule = "the pipeline does not start, or sends no frame"
            raise UserError(address.text, rule, f"try it: gst-launch-1.0 {pipeline}")

    def _at_end(self) -> CapturedFrame | None:
        self._release()
        return None


def require_gstreamer(text: str) -> None:
    """Raise UserError for `text` where OpenCV was built without it."""
    import cv2

    if "GStreamer:                   YES" not in cv2.getBuildInformation():
        rule = "this OpenCV was built without GStreamer, as those of PyPI are"
        raise UserError(text, rule, "use JetPack's OpenCV, or Debian's python3-opencv")


def whole_pipeline(text: str) -> str:
    """With what hands frames to OpenCV at its end, where it has no appsink of its own: the newest one alone, in BGR."""
    return text if "appsink" in text else f"{text} ! {TO_BGR} ! {SINK}"


def of_csi(port: int, settings: Settings) -> str:
    """The pipeline for a camera on a Jetson's CSI port: NVIDIA's driver, its scaler, BGR."""
    width, height = settings.get("width", WIDTH), settings.get("height", HEIGHT)
    caps = f"video/x-raw(memory:NVMM), width={width}, height={height}, framerate={settings.get('fps', FPS)}/1"
    flip = f" flip-method={settings['flip']}" if "flip" in settings else ""
    return f"nvarguscamerasrc sensor-id={port} ! {caps} ! nvvidconv{flip} ! video/x-raw, format=BGRx ! {TO_BGR} ! {SINK}"
