"""Pace: no more frames a second than are asked for."""

from __future__ import annotations

import time


class Pace:
    """`wait` returns when the next frame may begin; at once without a limit, and for whoever is slower than it.

    Time that was lost is not made up for: a frame that came late moves those behind it.
    """

    def __init__(self, most_per_second: float | None) -> None:
        self._gap_s = 0.0 if most_per_second is None else 1 / most_per_second
        self._due_s = 0.0

    def wait(self) -> None:
        now_s = time.monotonic()
        if now_s < self._due_s:
            time.sleep(self._due_s - now_s)
            now_s = self._due_s
        self._due_s = now_s + self._gap_s
