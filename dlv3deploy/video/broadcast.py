"""Labelled pictures to whoever watches: through a pipeline of GStreamer, or to an RTSP server that takes what it is sent."""

from __future__ import annotations

import re
import shlex
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Frame
from dlv3deploy.video.gstreamer import require_gstreamer
from dlv3deploy.video.recording import USUAL_FPS, VideoRecording
from dlv3deploy.video.settings import Settings, read_settings, whole
from dlv3deploy.video.sink import Segmented
from dlv3deploy.video.source import without_password

if TYPE_CHECKING:
    import cv2

FROM_FRAMES = "appsrc ! queue max-size-buffers=2 ! videoconvert"
OF_RTSP = {"bitrate": whole(50, 100_000)}  # thousands of bits a second
BITRATE = "4000"
END_WAIT_S = 3.0


class Broadcast(VideoRecording):
    """Every result is sent at once; where nothing came for longer than a frame lasts, the one before it is sent again first, so
    that what is sent keeps the time. Live results that come faster than `fps` are left out.

    Raises UserError where OpenCV was built without GStreamer, and, from `write`, when the pipeline does not start; that one has
    ended since, only OpenCV 5 tells. After a gap of more than ten seconds what is sent is late by the rest of it.
    """

    def __init__(self, text: str, pipeline: str, fps: float | None, is_live: bool) -> None:
        require_gstreamer(text)
        self._is_live = is_live
        super().__init__(GStreamerVideo(text, pipeline, fps or USUAL_FPS), fps)

    def write(self, result: Segmented) -> None:
        if self._is_live:
            result = replace(result, frame=replace(result.frame, position_s=result.frame.time_s))
            if self._ahead(result.frame.time_s) < 0:
                return
        super().write(result)


class GStreamerVideo:
    """A pipeline that is given pictures of one size (height, width; both even); it starts with the first one."""

    def __init__(self, text: str, pipeline: str, fps: float) -> None:
        self._text, self._pipeline, self._fps = text, pipeline, fps
        self._writer: cv2.VideoWriter | None = None

    def write(self, picture: Frame) -> None:
        import cv2

        if self._writer is None:
            height, width = picture.shape[:2]
            self._writer = cv2.VideoWriter(self._pipeline, cv2.CAP_GSTREAMER, 0, self._fps, (width, height))
        if not self._writer.isOpened() or self._writer.write(picture) is False:  # OpenCV 4 returns nothing
            shown = without_password(self._pipeline)
            remedy = f"try its end: gst-launch-1.0 {shlex.join(shown.replace('appsrc', 'videotestsrc', 1).split())}"
            raise UserError(self._text, "the pipeline does not start, or has ended", remedy)

    def complete(self) -> None:
        """End the stream; a server that does not answer to that is left to itself after `END_WAIT_S`."""
        if self._writer is not None:
            ending = threading.Thread(target=self._writer.release, name="broadcast", daemon=True)
            ending.start()
            ending.join(END_WAIT_S)
            self._writer = None


def pipeline_of(text: str) -> tuple[str, str]:
    """What is shown of a sink `gst:PIPELINE` or `rtsp://HOST/PATH#bitrate=KBIT`, and its whole pipeline. Raises UserError."""
    shown = without_password(text)
    if text.lower().startswith("gst:"):
        end = text[len("gst:") :].removeprefix("//").strip()
        if not end:
            raise UserError(text, "names no pipeline", "write its end: 'gst:x264enc ! mp4mux ! filesink location=out.mp4'")
        return shown, end if "appsrc" in end else f"{FROM_FRAMES} ! {end}"
    url, _, settings = text.partition("#")
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or '"' in url:
        rule = "has a quotation mark in it" if host else "names no server"
        raise UserError(shown, rule, "write it as rtsp://HOST/PATH")
    return shown, of_rtsp(url, read_settings(shown, settings, OF_RTSP))


def files_in(pipeline: str) -> list[Path]:
    """What a pipeline's elements read or write by `location`, addresses left out."""
    found = re.findall(r"location\s*=\s*(\"[^\"]*\"|\S+)", pipeline)
    return [Path(text.strip('"')).expanduser() for text in found if "://" not in text]


def of_rtsp(url: str, settings: Settings) -> str:
    """H.264 without waiting for later frames, a key frame each second or two, recorded by the server at `url`."""
    encoder = f"x264enc tune=zerolatency speed-preset=veryfast key-int-max=50 bitrate={settings.get('bitrate', BITRATE)}"
    return f'{FROM_FRAMES} ! video/x-raw, format=I420 ! {encoder} ! rtspclientsink location="{url}"'
