"""Observers watch one tensor over many images, one image at a time, and say at the end what they have seen.

Collecting and computing are separate: `collect` in any order and grouping of images, then whatever result the observer has.
Histograms are in `histogram.py`, the moments of convolutions' patches in `patches.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import CheckFailed


class Observer(Protocol):
    def collect(self, values: NDArray[Any]) -> None:
        """Add one or several images of the tensor, N×C×H×W."""


Observers = Mapping[str, Sequence[Observer]]  # by tensor


class ChannelRange:
    """The largest magnitude of every channel, C."""

    def __init__(self, tensor: str) -> None:
        self.tensor = tensor
        self.largest: NDArray[np.float32] | None = None

    def collect(self, values: NDArray[Any]) -> None:
        """Raises CheckFailed when a value is not finite."""
        here = np.maximum(values.max(axis=(0, 2, 3)), -values.min(axis=(0, 2, 3)))
        if not np.isfinite(here).all():
            raise not_finite(self.tensor)
        self.largest = here if self.largest is None else np.maximum(self.largest, here)

    def compute(self) -> NDArray[np.float32]:
        if self.largest is None:
            raise ValueError(f"nothing was collected for {self.tensor}")
        return self.largest


def not_finite(tensor: str) -> CheckFailed:
    return CheckFailed(f"tensor {tensor} holds values that are not finite; the weights are broken, train or export again")
