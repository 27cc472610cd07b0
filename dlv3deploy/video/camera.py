"""Cameras of this machine, by number."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dlv3deploy.core.errors import UserError
from dlv3deploy.video.decoded import DecodedSource
from dlv3deploy.video.frames import CapturedFrame
from dlv3deploy.video.quiet import silence_opencv
from dlv3deploy.video.source import SourceAddress


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
        if not self._begin(cv2.VideoCapture(address.device, backend)):
            raise UserError(
                address.text,
                "sends no frames; it may be in use by another program, or be a camera's second, data-only device",
                f"close the other program, or try another one: {_present()}",
            )

    def _at_end(self) -> CapturedFrame | None:
        raise UserError(self._text, f"stopped sending after {self._count} frames", "check its cable, and start again")


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
