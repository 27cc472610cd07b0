"""Times of a run's steps, in bounded memory however long it goes on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

FRAMES_KEPT = 10_000


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds."""

    p50: float
    p90: float
    p99: float


class Times:
    """Collects seconds; `percentiles` are of the last `FRAMES_KEPT`."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=FRAMES_KEPT)

    def collect(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def percentiles(self) -> Percentiles | None:
        """None when nothing was collected."""
        import numpy as np

        if not self._seconds:
            return None
        p50, p90, p99 = (float(value) * 1000 for value in np.percentile(list(self._seconds), (50, 90, 99)))
        return Percentiles(p50, p90, p99)
