"""How far a convolution's output is from its float counterpart: over everything, by channel, and by distance from the border.

An atrous convolution of rate r reads padding at every position nearer than r to the border, so its error there has other causes
and another size than in the middle. The map is cut into rings of equal distance from the border, and each has its own figure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.fidelity import decibels
from dlv3deploy.calibration.network import Conv
from dlv3deploy.calibration.valid_taps import valid_taps_per_position

RINGS = 8
LEAST_DEVIATION = 0.1  # of the median channel's; one that hardly varies is measured by this, or its shift would mean nothing
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Ring:
    """The positions that lie `nearest` to `furthest` steps from the border of the output map, 0 being the border itself, with
    the mean number of valid taps there. `snr_db` compares the ring's own signal and error."""

    nearest: int
    furthest: int
    positions: int
    valid_taps: float
    snr_db: float


@dataclass(frozen=True)
class ErrorFacts:
    """`snr_db` is the power of the float output over that of the difference.

    Bias shifts are mean errors of a channel in units of its float output's standard deviation (at least LEAST_DEVIATION of the
    median channel's): of the `shifted_channel` that moved furthest, with sign, and the mean magnitude over all channels.
    `shift_share` is the share of the error's power, 0 to 1, that such shifts make.
    """

    snr_db: float
    bias_shift_worst: float
    bias_shift_mean: float
    shifted_channel: int
    shift_share: float
    rings: tuple[Ring, ...] = ()


class OutputError:
    """Collects pairs of one convolution's outputs, N×C×h×w each; memory is that of one map."""

    def __init__(self, conv: Conv) -> None:
        self.conv = conv
        shape = conv.rows.outputs, conv.columns.outputs
        self.signal, self.noise = np.zeros(shape), np.zeros(shape)
        self.sums: NDArray[np.float64] | None = None  # of the error, the signal and its square, by channel
        self.count = 0

    def collect(self, wanted: Map, found: Map) -> None:
        error, squares = found - wanted, np.square(wanted)
        self.signal += squares.sum(axis=(0, 1), dtype=np.float64)
        self.noise += np.square(error).sum(axis=(0, 1), dtype=np.float64)
        sums = np.stack([values.sum(axis=(0, 2, 3), dtype=np.float64) for values in (error, wanted, squares)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.count += wanted[:, 0].size

    def compute(self, rings: bool = False) -> ErrorFacts:
        """With `rings`, by distance from the border too."""
        if self.sums is None:
            raise ValueError(f"nothing was compared for {self.conv.name}")
        error, mean, square = self.sums / self.count
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        unit = np.maximum(deviation, LEAST_DEVIATION * np.median(deviation))
        shift = np.divide(error, unit, out=np.zeros_like(error), where=unit > 0)
        worst = int(np.abs(shift).argmax())
        noise = float(self.noise.sum())
        snr_db = decibels(float(self.signal.sum()), noise)
        share = min(1.0, self.count * float(np.square(error).sum()) / noise) if noise > 0 else 0.0
        found = tuple(self._rings()) if rings else ()
        return ErrorFacts(snr_db, float(shift[worst]), float(np.abs(shift).mean()), worst, share, found)

    def _rings(self) -> list[Ring]:
        distance, taps = distance_from_border(*self.signal.shape), valid_taps_per_position(self.conv)
        found = []
        for part in np.array_split(np.arange(distance.max() + 1), min(RINGS, distance.max() + 1)):
            nearest, furthest = int(part[0]), int(part[-1])
            here = (distance >= nearest) & (distance <= furthest)
            snr_db = decibels(float(self.signal[here].sum()), float(self.noise[here].sum()))
            found.append(Ring(nearest, furthest, int(here.sum()), float(taps[here].mean()), snr_db))
        return found


def distance_from_border(height: int, width: int) -> NDArray[np.intp]:
    """H×W: how many steps each position lies from the nearest edge of its map, 0 on the edge."""
    down, across = (np.minimum(np.arange(size), np.arange(size)[::-1]) for size in (height, width))
    return np.minimum(down[:, None], across[None, :])
