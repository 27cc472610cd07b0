"""The part that cameras, streams and video files share: frames out of one `cv2.VideoCapture`."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from dlv3deploy.core.images import Frame
from dlv3deploy.video.frames import CapturedFrame, Source

if TYPE_CHECKING:
    import cv2

CLOSE_WAIT_S = 0.5
HIGHEST_FPS = 1000.0  # containers without a rate report their clock instead, 90000 or so
HIGHEST_COUNT = 1 << 40  # containers without a frame count report the smallest or largest 64-bit number


class DecodedSource(Source):
    """Reads from `self._capture`; a subclass opens it, calls `_begin`, and says in `_at_end` what a missing frame means.

    OpenCV's captures may not be released while another thread reads from them, so both happen under a lock. A `close` that
    finds the lock held for longer than half a second leaves the release to the read that holds it.
    """

    def __init__(self, stem: str) -> None:
        self._stem = stem
        self._count = 0
        self._waited_s = 0.0
        self._capture: cv2.VideoCapture | None = None
        self._first: CapturedFrame | None = None
        self._reading = threading.Lock()
        self._closing = threading.Event()

    def _begin(self, capture: cv2.VideoCapture) -> bool:
        """Take over `capture` and read its first frame; False, and `capture` released, when there is none."""
        import cv2

        found, pixels = capture.read() if capture.isOpened() else (False, None)
        if not found or pixels is None:
            capture.release()
            return False
        self._capture = capture
        self._first = self._captured(_as_bgr(pixels), capture)
        height, width = self._first.pixels.shape[:2]
        self.size = height, width
        self.fps = _within(capture.get(cv2.CAP_PROP_FPS), HIGHEST_FPS)
        count = _within(capture.get(cv2.CAP_PROP_FRAME_COUNT), HIGHEST_COUNT)
        self.frame_count = None if count is None else round(count)
        return True

    def read(self) -> CapturedFrame | None:
        with self._reading:
            try:
                return self._next()
            finally:
                if self._closing.is_set():
                    self._release()

    def _next(self) -> CapturedFrame | None:
        if self._first is not None:
            first, self._first = self._first, None
            return None if self._closing.is_set() else first
        if self._capture is None or self._closing.is_set():
            return None
        started_s = time.monotonic()
        found, pixels = self._capture.read()
        self._waited_s = time.monotonic() - started_s
        if found:
            return self._captured(_as_bgr(pixels), self._capture)
        return None if self._closing.is_set() else self._at_end()

    def _captured(self, pixels: Frame, capture: cv2.VideoCapture) -> CapturedFrame:
        index = self._count
        self._count += 1
        name = f"{self._stem}_{index:06d}"
        return CapturedFrame(pixels, index, time.monotonic(), name, position_s=self._position_s(capture))

    def _position_s(self, _capture: cv2.VideoCapture) -> float | None:
        """Where the frame that was just read lies in its file."""
        return None

    @abstractmethod
    def _at_end(self) -> CapturedFrame | None:
        """What `read` returns when the capture gave no frame after `_waited_s` seconds; may raise UserError."""

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        if self._reading.acquire(timeout=CLOSE_WAIT_S):
            try:
                self._release()
            finally:
                self._reading.release()

    def _release(self) -> None:
        self._first = None
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _as_bgr(pixels: object) -> Frame:
    """A grey camera's H×W or H×W×1 frames, 8 or 16 bits deep, as H×W×3 uint8; any other frame as it is."""
    frame = np.asarray(pixels)
    if frame.dtype != np.uint8:
        frame = (frame >> 8 if frame.dtype == np.uint16 else np.clip(frame, 0, 255)).astype(np.uint8)
    if frame.ndim == 2 or frame.shape[2] == 1:
        frame = np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(frame[:, :, :3])


def _within(value: float, highest: float) -> float | None:
    """`value` as the container states it, or None when it is a placeholder."""
    return float(value) if 0 < value < highest else None
