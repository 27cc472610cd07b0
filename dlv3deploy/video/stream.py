"""Network streams: RTSP cameras, MJPEG over HTTP, and video files that a web server holds."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.progress import say
from dlv3deploy.video.backoff import Backoff
from dlv3deploy.video.decoded import DecodedSource
from dlv3deploy.video.frames import CapturedFrame
from dlv3deploy.video.quiet import silence_opencv
from dlv3deploy.video.settings import Settings
from dlv3deploy.video.source import SourceAddress

if TYPE_CHECKING:
    import cv2

USUAL_PORTS = {"rtsp": 554, "http": 80, "https": 443}
FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
OPENING = threading.Lock()  # one at a time: the environment is everyone's


@dataclass(frozen=True)
class Patience:
    """How long a server may take: to open, to send the next frame, and to come back once it stopped."""

    open_s: float = 10.0
    read_s: float = 5.0
    return_s: float = 300.0


class StreamSource(DecodedSource):
    """A stream that states no frame count is live, and such a one has no end.

    When it stops sending it is opened again, after waits by `Backoff`; only when it stays away for `patience.return_s` is that
    a UserError. With `#reconnect=0` it ends where the server ends it, and silence is a UserError. `reconnects` counts how often
    it came back.
    """

    def __init__(self, address: SourceAddress, patience: Patience | None = None) -> None:
        silence_opencv()
        super().__init__("stream")
        self._address, self._patience = address, patience or Patience()
        if "reconnect" in address.settings:
            self._patience = replace(self._patience, return_s=float(address.settings["reconnect"]))
        if not self._begin(self._open(self._patience.open_s)):
            raise UserError(address.text, *_why_closed(address.url, self._patience.open_s))
        self.live = self.frame_count is None
        self.silence_s = self._patience.return_s + self._patience.open_s + self._patience.read_s

    def _open(self, limit_s: float) -> cv2.VideoCapture:
        import cv2

        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            round(limit_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            round(self._patience.read_s * 1000),
        ]
        with _ffmpeg_options(self._address.settings):
            return cv2.VideoCapture(self._address.url, cv2.CAP_FFMPEG, limits)

    def _at_end(self) -> CapturedFrame | None:
        if self.live and self._patience.return_s > 0:
            return self._return()
        if self._waited_s > 0.9 * self._patience.read_s:  # FFmpeg's clock and this one differ by some milliseconds
            raise UserError(
                self._address.text,
                f"sent nothing for {self._waited_s:.0f} s after {self._count} frames",
                "check the server and the network, and start again",
            )
        if self.frame_count is not None and self._count < self.frame_count:
            self.failed = self.frame_count - self._count
            say(f"{self._address.text}: ended after {self._count} frames, {self.frame_count} were announced")
        self._release()
        return None

    def _return(self) -> CapturedFrame | None:
        """The first frame after the stream was opened anew; None when `close` was called meanwhile."""
        say(f"{self._address.text}: stopped sending after {self._count} frames; opening it again")
        self._release()
        deadline_s, backoff = time.monotonic() + self._patience.return_s, Backoff()
        while (left_s := deadline_s - time.monotonic()) > 0:
            if self._closing.wait(min(left_s, backoff.next_s())):
                return None
            if self._begin(self._open(min(left_s, self._patience.open_s))):
                self.reconnects += 1
                say(f"{self._address.text}: sends again")
                frame, self._first = self._first, None
                return frame
        raise UserError(
            self._address.text,
            f"stopped after {self._count} frames and did not come back within {self._patience.return_s:.0f} s",
            "check the camera and the network, and start again",
        )


@contextmanager
def _ffmpeg_options(settings: Settings) -> Iterator[None]:
    """What OpenCV hands on to FFmpeg while it opens a stream; the environment is the only way there.

    Whatever stands there takes the place of OpenCV's own choice, which is TCP.
    """
    options = [f"rtsp_transport;{settings.get('transport', 'tcp')}"] if settings.keys() & {"transport", "latency"} else []
    if "latency" in settings:
        microseconds = 1000 * int(settings["latency"])
        options += [f"max_delay;{microseconds}", "fflags;nobuffer", "flags;low_delay"]
    with OPENING:
        before = os.environ.get(FFMPEG_OPTIONS)
        if options:
            os.environ[FFMPEG_OPTIONS] = "|".join([*options, *([before] if before else [])])
        try:
            yield
        finally:
            if options and before is None:
                del os.environ[FFMPEG_OPTIONS]
            elif options and before is not None:
                os.environ[FFMPEG_OPTIONS] = before


def _why_closed(url: str, limit_s: float) -> tuple[str, str]:
    """The rule and the remedy for a stream that did not open; OpenCV does not tell why, so the server is asked once more."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        port = parts.port or USUAL_PORTS[parts.scheme.lower()]
        socket.create_connection((host, port), timeout=2.0).close()
    except ValueError:
        return "its port is not a number from 0 to 65535", "mend the address"
    except OSError as error:
        reason = error.strerror or "no answer"
        return (f"no server is reached there ({reason})", "check the address, that the server is on, and the network")
    return (
        f"the server is there, but sent no video within {limit_s:.0f} s",
        "check the path, the user name and password, and that the server sends RTSP, MJPEG or a video file",
    )
