"""How much of an atrous convolution's kernel reads the map, and how much reads padding (paper, section 3.3 and Figure 4).

A tap of a k×k kernel at atrous rate r stands (i − (k−1)/2)·r away from the output position. It is *valid* where it falls inside
the map. Height and width are independent, so the shares of one axis multiply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Window(NamedTuple):
    """One axis of a convolution: `size` input positions, kernel taps, atrous rate, stride, padding before and after."""

    size: int
    kernel: int
    rate: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0

    @property
    def outputs(self) -> int:
        return max(0, (self.size + self.before + self.after - self.rate * (self.kernel - 1) - 1) // self.stride + 1)

    def valid_positions(self, tap: int) -> int:
        """At how many output positions o the tap reads inside the map: 0 ≤ o·stride − before + tap·rate < size."""
        shift = tap * self.rate - self.before
        first = max(0, -(shift // self.stride))  # the smallest o with o·stride + shift ≥ 0
        last = min(self.outputs - 1, (self.size - 1 - shift) // self.stride)
        return max(0, last - first + 1)

    def valid_share(self) -> float:
        """Valid taps of this axis as a share of kernel · outputs, 0 to 1."""
        total = self.kernel * self.outputs
        return sum(self.valid_positions(tap) for tap in range(self.kernel)) / total if total else 0.0


@dataclass(frozen=True)
class ValidTaps:
    """Both axes of a two-dimensional convolution."""

    rows: Window
    columns: Window

    def share(self) -> float:
        """Valid taps as a share of all taps over all output positions, 0 to 1."""
        return self.rows.valid_share() * self.columns.valid_share()
