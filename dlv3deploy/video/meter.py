"""How a run is doing, on stderr: one line that renews itself on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from typing import TextIO

TERMINAL_EVERY_S = 0.2
LOG_EVERY_S = 5.0
SMOOTHING = 0.1  # the weight of the newest frame in the shown rate


class Meter:
    """Call it once a frame, then `close`. Prints nothing before the first interval has passed."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._renews = self._stream.isatty()
        self._every_s = TERMINAL_EVERY_S if self._renews else LOG_EVERY_S
        self._last_s = self._shown_s = time.monotonic()
        self._gap_s: float | None = None
        self._line_open = False

    def __call__(self, frames: int, dropped: int, inference_ms: float) -> None:
        now_s = time.monotonic()
        gap_s = now_s - self._last_s
        self._gap_s = gap_s if self._gap_s is None else self._gap_s + SMOOTHING * (gap_s - self._gap_s)
        self._last_s = now_s
        if now_s - self._shown_s < self._every_s:
            return
        self._shown_s = now_s
        rate = 1 / self._gap_s if self._gap_s else 0.0
        text = f"{frames} frames, {rate:.1f} frames/s, inference {inference_ms:.0f} ms, {dropped} dropped"
        self._stream.write(f"\r\x1b[K{text}" if self._renews else f"{text}\n")
        self._stream.flush()
        self._line_open = self._renews

    def close(self) -> None:
        """Wipe the renewing line."""
        if self._line_open:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._line_open = False
