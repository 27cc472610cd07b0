"""The newest result of a stream, for many readers, and what came before it in figures."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import numpy as np

from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.sink import Segmented
from dlv3deploy.video.timing import Times

WIDEST, THUMBNAIL = 1280, 240  # pixels of a picture that is sent
JPEG_QUALITY = 80
WAKE_EVERY_S = 1.0  # a reader who waits for a frame looks this often whether the run goes on
SECONDS_OF_RATE = 3.0


class NewestResult:
    """Put by one thread, read by any."""

    def __init__(self, overlay: Overlay) -> None:
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._overlay = overlay
        self._count = 0
        self._result: Segmented | None = None
        self._jpegs: dict[int, tuple[int, bytes]] = {}  # by the width that they are limited to
        self._times_s: deque[float] = deque()
        self._took = Times()

    def put(self, result: Segmented) -> None:
        with self._changed:
            self._count += 1
            self._result = result
            now_s = time.monotonic()
            self._times_s.append(now_s)
            while now_s - self._times_s[0] > SECONDS_OF_RATE:
                self._times_s.popleft()
            if result.work is not None:
                self._took.collect(sum(result.work.stages_s.values()))
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        return self._over.is_set()

    def end(self) -> None:
        with self._changed:
            self._over.set()
            self._changed.notify_all()

    def rest(self, seconds: float) -> None:
        """Come back then, or when it ends."""
        self._over.wait(seconds)

    def quiet_s(self) -> float | None:
        """For how long no frame has come; None where none ever did."""
        with self._changed:
            return time.monotonic() - self._times_s[-1] if self._times_s else None

    def after(self, count: int) -> tuple[int, Segmented | None]:
        """The count and the result of the newest frame once it is later than `count`, or of none after a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > count or self.ended, WAKE_EVERY_S)
            return (self._count, self._result) if self._count > count else (count, None)

    def jpeg(self, count: int, result: Segmented, widest: int = WIDEST) -> bytes:
        """The picture of `result`, no wider than that, encoded once for all who look."""
        import cv2

        with self._encoding:
            known, data = self._jpegs.get(widest, (0, b""))
            if known < count:
                picture = self._overlay(result.frame.pixels, result.mask) if result.picture is None else result.picture
                if picture.shape[1] > widest:
                    height = max(1, round(picture.shape[0] * widest / picture.shape[1]))
                    picture = np.asarray(cv2.resize(picture, (widest, height), interpolation=cv2.INTER_AREA), np.uint8)
                _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                data = encoded.tobytes()
                self._jpegs[widest] = count, data
            return data

    def thumbnail(self) -> bytes:
        """A small picture of the newest result; nothing where there is none yet."""
        with self._changed:
            count, result = self._count, self._result
        return b"" if result is None else self.jpeg(count, result, THUMBNAIL)

    def figures(self, result: Segmented, classes: int) -> dict[str, Any]:
        """What the page shows beside the picture; times in ms, shares 0 to 1 by class id."""
        with self._changed:
            times, took, frames = list(self._times_s), self._took.percentiles(), self._count
        gap_s = times[-1] - times[0] if len(times) > 1 else 0.0
        counts = np.bincount(result.mask.ravel(), minlength=classes)[:classes]
        found: dict[str, Any] = {
            "frame": result.frame.index,
            "frames": frames,
            "frames_per_second": (len(times) - 1) / gap_s if gap_s else None,
            "size": f"{result.frame.pixels.shape[1]}×{result.frame.pixels.shape[0]}",
            "shares": [round(int(n) / result.mask.size, 4) for n in counts],
        }
        if result.work is not None and took is not None:
            found["stages_ms"] = {name: round(1000 * seconds, 2) for name, seconds in result.work.stages_s.items()}
            found["delay_ms"] = round(1000 * (result.work.ended_s - result.frame.time_s), 1)
            found["dropped"] = result.work.dropped
            found["took_ms"] = {"p50": took.p50, "p90": took.p90, "p99": took.p99}
        return found
