"""What a tensor's grid does to the values that were seen: which it holds, how finely, and which saturate."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from dlv3deploy.calibration.fidelity import decibels
from dlv3deploy.calibration.grid import QMAX, Range, step_of
from dlv3deploy.calibration.histogram import Magnitudes
from dlv3deploy.calibration.thresholds import mean_squared_error

BARS = 64


@dataclass(frozen=True)
class TensorFacts:
    """`low` and `high` are the extremes seen on the calibration images; the grid covers −threshold … threshold in steps.

    All else follows from the histogram: `saturated` is the share of values (0 to 1) beyond the threshold, `saturation_noise`
    their share of the error that the grid makes, `snr_db` the power of the values over that of the error, `best_snr_db` the
    same with the threshold of least error. `counts` are magnitudes in bars of `bar_width` from 0. With the step `valid-taps` a
    value counts as often as it is read. Tensors in `shares_with` have the same grid.
    """

    name: str
    low: float
    high: float
    threshold: float
    step: float
    saturated: float
    saturation_noise: float
    snr_db: float
    best_snr_db: float
    shares_with: tuple[str, ...]
    bar_width: float
    counts: tuple[float, ...]

    @property
    def largest(self) -> float:
        return max(abs(self.low), abs(self.high))


def tensor_facts(name: str, seen: Magnitudes, covered: Range, shares_with: Collection[str] = ()) -> TensorFacts:
    """The facts of one tensor, from its histogram and the range that its grid covers."""
    step = covered.step()
    threshold = QMAX * step
    snr_db, saturation_noise = _grid_error(seen, step)
    best_snr_db = max(snr_db, _grid_error(seen, step_of(mean_squared_error(seen)))[0])
    width, bars = _bars(seen)
    return TensorFacts(
        name,
        seen.low,
        seen.high,
        threshold,
        step,
        _share_beyond(seen, threshold),
        saturation_noise,
        snr_db,
        best_snr_db,
        tuple(sorted(shares_with)),
        width,
        bars,
    )


def _grid_error(seen: Magnitudes, step: float) -> tuple[float, float]:
    """The values' power over that of the error on a grid of this step, in dB, and how much of the error is saturation."""
    counts = seen.counts.copy()
    counts[0] = max(0.0, counts[0] - seen.zeros)  # every grid holds an exact zero
    centres, spread = seen.centres, min(seen.width, step) ** 2 / 12  # of the values within a bin
    error = (centres - np.minimum(np.rint(centres / step), QMAX) * step) ** 2 + spread
    beyond = centres > QMAX * step
    noise = float(counts @ error)
    share = float(counts[beyond] @ error[beyond]) / noise if noise > 0 else 0.0
    return decibels(float(counts @ (centres**2 + spread)), noise), share


def _share_beyond(seen: Magnitudes, threshold: float) -> float:
    """Values above the threshold as a share of all; within the bin that it cuts they are taken to be spread evenly."""
    total = float(seen.counts.sum())
    if total <= 0 or threshold >= seen.largest * (1 - 1e-6):  # the step is rounded to float32
        return 0.0
    above = np.clip((np.arange(len(seen.counts)) + 1) - threshold / seen.width, 0, 1)
    return float(seen.counts @ above) / total


def _bars(seen: Magnitudes) -> tuple[float, tuple[float, ...]]:
    """At most BARS bars of whole bins, up to the last bin that holds a value."""
    used = int(np.flatnonzero(seen.counts).max(initial=0)) + 1
    bins = -(-used // BARS)
    padded = np.zeros(-(-used // bins) * bins)
    padded[:used] = seen.counts[:used]
    return seen.width * bins, tuple(float(count) for count in padded.reshape(-1, bins).sum(axis=1))
