"""How much of an atrous convolution's kernel reads the map, and how much reads padding (paper, section 3.3 and Figure 4).

A tap of a k×k kernel at atrous rate r stands (i − (k−1)/2)·r away from the output position. It is *valid* where it falls inside
the map. Height and width are independent, so the shares of one axis multiply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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

    def valid_range(self, tap: int) -> range:
        """The output positions o at which the tap reads inside the map: 0 ≤ o·stride − before + tap·rate < size."""
        shift = tap * self.rate - self.before
        first = max(0, -(shift // self.stride))  # the smallest o with o·stride + shift ≥ 0
        last = min(self.outputs - 1, (self.size - 1 - shift) // self.stride)
        return range(first, last + 1)

    def valid_positions(self, tap: int) -> int:
        return len(self.valid_range(tap))

    def positions_by_valid_taps(self) -> Counter[int]:
        """How many output positions have exactly n valid taps, for every n that occurs.

        Each tap is valid on one interval, so the count changes at most 2·kernel times and no position is visited. Three taps
        at rate r on N positions with r of padding: n₃ = max(0, N − 2r), n₂ = 2·max(0, min(r, N − r)), n₁ = N − n₂ − n₃.
        """
        change = Counter({0: 0, self.outputs: 0})
        for valid in filter(None, map(self.valid_range, range(self.kernel))):
            change[valid.start] += 1
            change[valid.stop] -= 1
        edges, found, taps = sorted(change), Counter[int](), 0
        for edge, following in zip(edges, edges[1:], strict=False):
            taps += change[edge]
            found[taps] += following - edge
        return found

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

    def shares(self) -> dict[int, float]:
        """The share of output positions, 0 to 1, that have exactly n valid taps, for every n that occurs, largest n first."""
        found: Counter[int] = Counter()
        for down, high in self.rows.positions_by_valid_taps().items():
            for across, wide in self.columns.positions_by_valid_taps().items():
                found[down * across] += high * wide
        total = self.rows.outputs * self.columns.outputs
        return {taps: found[taps] / total for taps in sorted(found, reverse=True)}


def valid_weight_shares(size: int, kernel: int, rates: Sequence[int]) -> dict[int, list[float]]:
    """Figure 4 of the paper: for n valid weights of a kernel×kernel filter (odd), the share of positions at every rate.

    The map is size×size and keeps its size (stride 1, padded to both sides alike). Every n that any rate could give has a list,
    smallest first: 1, 2, 3, 4, 6 and 9 for a 3×3 filter.
    """
    possible = sorted({down * across for down in range(1, kernel + 1) for across in range(1, kernel + 1)})
    axes = [Window(size, kernel, rate, before=rate * (kernel // 2), after=rate * (kernel // 2)) for rate in rates]
    found = [ValidTaps(axis, axis).shares() for axis in axes]
    return {taps: [shares.get(taps, 0.0) for shares in found] for taps in possible}
