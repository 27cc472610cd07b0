"""The grids of symmetric INT8: real value = step · integer, zero point 0. Ranges are covered by −127 to 127; −128 holds only
what saturates below them, for QuantizeLinear stops no earlier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QMAX = 127
SMALLEST_STEP = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Range:
    """Smallest and largest value that a tensor's grid covers, in the tensor's own units."""

    low: float
    high: float

    def step(self) -> float:
        """Real units per integer. A tensor that is always zero, or so small that the step would vanish in float32, takes
        1/127."""
        return step_of(max(abs(self.low), abs(self.high)))

    def union(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))

    def within(self, threshold: float) -> Range:
        """What is left of the range when magnitudes above `threshold` saturate."""
        return Range(*(max(-threshold, min(end, threshold)) for end in (self.low, self.high)))


def step_of(largest: float, levels: int = QMAX) -> float:
    step = largest / levels
    return step if step >= SMALLEST_STEP else 1 / levels


def steps_of(largest: NDArray[np.floating], levels: int = QMAX) -> NDArray[np.float32]:
    """`step_of` for an array of largest magnitudes."""
    steps = np.asarray(largest, np.float64) / levels
    return np.where(steps >= SMALLEST_STEP, steps, 1 / levels).astype(np.float32)


def on_grid(values: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """What a pair of QuantizeLinear and DequantizeLinear returns for `values`: rounded half to even, saturated."""
    scaled: NDArray[np.float32] = np.rint(values / np.float32(step))
    np.clip(scaled, -QMAX - 1, QMAX, out=scaled)
    scaled *= np.float32(step)
    return scaled
