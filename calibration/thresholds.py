"""From a histogram of magnitudes to the largest one that INT8 should still hold: everything above it saturates.

With a threshold T the grid is {−127 … 127} · T/127. A smaller T has finer steps and cuts off more.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.histogram import Magnitudes

LEVELS = 128  # of a magnitude in symmetric INT8: 0 to 127
PERCENTILE = 99.99
CANDIDATES = 256
Threshold = Callable[[Magnitudes], float]


def min_max(seen: Magnitudes) -> float:
    """The largest magnitude: nothing saturates."""
    return seen.largest


def percentile(seen: Magnitudes, percent: float = PERCENTILE) -> float:
    """The end of the first bin up to which `percent` of all values lie."""
    total = np.cumsum(seen.counts)
    if total[-1] <= 0:
        return seen.largest
    place = int(np.searchsorted(total, total[-1] * percent / 100))
    return min(seen.largest, (place + 1) * seen.width)


def mean_squared_error(seen: Magnitudes) -> float:
    """The threshold with the smallest Σ count · (x − Q(x))², rounding and saturation together, x at the bins' centres.

    Not below a sixteenth of the largest magnitude: steps would be finer than bins, which then could not tell them apart.
    """
    used = np.flatnonzero(seen.counts)
    if not used.size or seen.largest <= 0:
        return seen.largest
    centres, counts = seen.centres[used], seen.counts[used]
    candidates = seen.largest * np.arange(CANDIDATES // 16, CANDIDATES + 1) / CANDIDATES
    steps = candidates[:, None] / (LEVELS - 1)
    grid = np.minimum(np.rint(centres / steps), LEVELS - 1) * steps
    # A bin is at most as wide as the finest step: its own spread adds width²/12 to rounding, the same for all candidates.
    errors = ((centres - grid) ** 2 * counts).sum(axis=1)
    return float(candidates[errors.argmin()])


def entropy(seen: Magnitudes) -> float:
    """The threshold whose quantised distribution is nearest to the true one in Kullback–Leibler divergence (Migacz 2017).

    For a candidate of n bins the true distribution P is the first n bins with all beyond added to the last; Q spreads the
    counts of each of 128 equal parts evenly over the bins that are not empty in P. The first bin, with the zeros that are half
    of all values behind ReLU and what is nearly zero, is left out: every grid holds it, and spreading its many counts would
    make any wide part look wrong.
    """
    counts = seen.counts.copy()
    counts[0] = 0
    used = np.flatnonzero(counts)
    if not used.size or used[-1] < LEVELS:
        return seen.largest
    last = int(used[-1]) + 1
    stops = np.unique(np.linspace(LEVELS, last, CANDIDATES).astype(int))
    divergences = [_divergence(counts, int(stop)) for stop in stops]
    best = int(stops[int(np.argmin(divergences))])
    return min(seen.largest, best * seen.width)


def _divergence(counts: NDArray[np.float64], stop: int) -> float:
    inside = counts[:stop]
    truth = inside.copy()
    truth[-1] += counts[stop:].sum()
    part = np.arange(stop) * LEVELS // stop
    filled = truth > 0
    members = np.bincount(part[filled], minlength=LEVELS)
    sums = np.bincount(part, weights=inside, minlength=LEVELS)
    spread = np.where(filled, (sums / np.maximum(members, 1))[part], 0.0)
    p, q = truth[filled] / truth.sum(), spread[filled] / max(spread.sum(), 1e-300)
    return float((p * np.log(p / np.maximum(q, 1e-12))).sum())


THRESHOLDS: dict[str, Threshold] = {
    "min-max": min_max,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mean_squared_error,
}
