"""A histogram of magnitudes that grows with what it sees, the same for any order and grouping of the images.

Bins are BINS equal parts of [0, 2^k], with the smallest k that holds everything seen so far. When k grows, pairs of bins become
one, which is exact, because every edge of the coarser grid is one of the finer grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.observers import not_finite

BINS = 4096
PORTION = 2**24
SMALLEST_EXPONENT = -60  # below it magnitudes count as 0


@dataclass(frozen=True)
class Magnitudes:
    """What a histogram says: `counts` of BINS bins of `width` each, from 0, of which `zeros` are exactly 0; extremes with
    sign."""

    counts: NDArray[np.float64]
    zeros: float
    width: float
    low: float
    high: float

    @property
    def largest(self) -> float:
        return max(abs(self.low), abs(self.high))

    @property
    def centres(self) -> NDArray[np.float64]:
        return np.asarray((np.arange(len(self.counts)) + 0.5) * self.width, np.float64)


class Histogram:
    """Collects |x| of one tensor; `weights` H×W, if given, say how often each position of its map counts."""

    def __init__(self, tensor: str, weights: NDArray[np.float64] | None = None) -> None:
        self.tensor, self.weights = tensor, weights
        self.counts, self.zeros = np.zeros(BINS), 0.0
        self.exponent = SMALLEST_EXPONENT
        self.low, self.high = np.inf, -np.inf

    def collect(self, values: NDArray[Any]) -> None:
        """Add an array N×C×H×W. Raises CheckFailed when it is not finite."""
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise not_finite(self.tensor)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow(max(-low, high))
        bins = np.abs(values)
        bins *= np.float32(2.0**-self.exponent * BINS)
        places = np.minimum(bins.astype(np.uint16), BINS - 1)
        if self.weights is None:
            self.counts += _counted(places)
            self.zeros += values.size - np.count_nonzero(values)
            return
        for weight in np.unique(self.weights):
            here = self.weights == weight
            self.counts += weight * _counted(places[..., here])
            self.zeros += weight * (np.count_nonzero(here) * values[..., 0, 0].size - np.count_nonzero(values[..., here]))

    def _grow(self, largest: float) -> None:
        if largest <= 0:
            return
        exponent = max(SMALLEST_EXPONENT, int(np.frexp(largest)[1]))  # largest < 2^exponent
        for _ in range(min(exponent - self.exponent, BINS.bit_length())):  # by then everything lies in the first bin
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS - len(merged))])
        self.exponent = max(self.exponent, exponent)

    def compute(self) -> Magnitudes:
        if self.low > self.high:
            raise ValueError(f"nothing was collected for {self.tensor}")
        return Magnitudes(self.counts.copy(), self.zeros, 2.0**self.exponent / BINS, self.low, self.high)


def _counted(places: NDArray[np.uint16]) -> NDArray[np.float64]:
    """How many fall into each bin. OpenCV counts five times as fast as NumPy, in float32, which is exact up to PORTION."""
    import cv2

    row, counts = places.reshape(1, -1), np.zeros(BINS)
    for start in range(0, row.size, PORTION):
        counts += cv2.calcHist([row[:, start : start + PORTION]], [0], None, [BINS], [0, BINS]).ravel()
    return counts
