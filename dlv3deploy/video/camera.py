"""Cameras of this machine, by number."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.progress import say
from dlv3deploy.video.decoded import DecodedSource
from dlv3deploy.video.frames import CapturedFrame
from dlv3deploy.video.quiet import silence_opencv
from dlv3deploy.video.settings import Settings
from dlv3deploy.video.source import SourceAddress

if TYPE_CHECKING:
    import cv2


class CameraSource(DecodedSource):
    """Raises UserError when the camera is not there, may not be opened, or sends nothing."""

    live = True

    def __init__(self, address: SourceAddress) -> None:
        self._text = address.text
        if sys.platform == "linux":
            _check_device(Path(f"/dev/video{address.device}"), address.text)
        silence_opencv()
        import cv2

        super().__init__(f"camera{address.device}")
        backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        capture = cv2.VideoCapture(address.device, backend)
        _ask_for(capture, address.settings)
        if not self._begin(capture):
            raise UserError(
                address.text,
                "sends no frames; it may be in use by another program, or be a camera's second, data-only device",
                f"close the other program, or try another one: {_present()}",
            )
        if address.settings:
            say(f"{address.text}: asked for {_listed(address.settings)}; got {_listed(self._got(capture))}")

    def _got(self, capture: cv2.VideoCapture) -> Settings:
        import cv2

        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        letters = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24)) if code > 0 else ""
        got = {"width": str(self.size[1]), "height": str(self.size[0]), "fps": f"{self.fps:g}" if self.fps else "?"}
        return {**got, "format": letters if letters.isprintable() and letters.strip() else "?"}

    def _at_end(self) -> CapturedFrame | None:
        raise UserError(self._text, f"stopped sending after {self._count} frames", "check its cable, and start again")


def _ask_for(capture: cv2.VideoCapture, settings: Settings) -> None:
    """The format first: it decides which sizes and rates there are."""
    import cv2

    if "format" in settings:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings["format"]))
    for name, number in (
        ("width", cv2.CAP_PROP_FRAME_WIDTH),
        ("height", cv2.CAP_PROP_FRAME_HEIGHT),
        ("fps", cv2.CAP_PROP_FPS),
    ):
        if name in settings:
            capture.set(number, float(settings[name]))


def _listed(settings: Settings) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _check_device(device: Path, text: str) -> None:
    if not device.exists():
        raise UserError(text, f"there is no {device}", f"{_present()}; a file or stream is given by --source")
    if not os.access(device, os.R_OK | os.W_OK):
        raise UserError(
            text, f"this user may not open {device}", "join the group: sudo usermod -aG video $USER, then log in again"
        )


def _present() -> str:
    devices = sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name))
    return f"this machine has {', '.join(map(str, devices))}" if devices else "this machine has no /dev/video* at all"
