"""Observers watch one tensor over many images, then say the range that its INT8 form must cover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import CheckFailed

QMAX = 127  # symmetric INT8: −127 to 127 with zero point 0; −128 stays unused so that the grid is symmetric
SMALLEST_STEP = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of a tensor, in the tensor's own units."""

    low: float
    high: float

    def scale(self) -> float:
        """The step of symmetric INT8: real value = step · integer. A tensor that is always zero, or so small that the step
        would vanish in float32, takes 1/127."""
        step = max(abs(self.low), abs(self.high)) / QMAX
        return step if step >= SMALLEST_STEP else 1 / QMAX

    def union(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


class Observer(Protocol):
    """Collecting and computing are separate: `collect` per image in any order and batching, `compute` once at the end."""

    def collect(self, values: NDArray[Any]) -> None: ...

    def compute(self) -> Range: ...


class MinMax:
    """The extremes over everything seen; a few numbers of memory, independent of order, batch size and image count."""

    def __init__(self, tensor: str) -> None:
        self.tensor = tensor
        self.low, self.high = np.inf, -np.inf

    def collect(self, values: NDArray[Any]) -> None:
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise CheckFailed(
                f"tensor {self.tensor} holds values that are not finite; the weights are broken, train or export again"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)

    def compute(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"nothing was collected for {self.tensor}")
        return Range(self.low, self.high)
