"""Mixed precision: as few convolutions in floating point as an accuracy budget allows.

Convolutions return to float in the order of what they buy, error taken away per multiply-accumulate given up (the greedy rule
of the knapsack problem). Along that order accuracy grows, so the shortest prefix within the budget is found by doubling and
bisection: a handful of measurements instead of one per layer. What is measured is what would be written: each mixture is
calibrated by itself, for layers that make good for one that is INT8 have nothing to make good for where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlv3deploy.calibration.sensitivity import Sensitivity

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Point:
    """One mixture: how many of the most sensitive convolutions are float, the share of multiply-accumulates left in INT8 (0 to
    1, of those that can be), and the mIoU lost (0 to 1)."""

    kept: int
    int8_share: float
    drop: float


@dataclass(frozen=True)
class Mixture:
    """`keep` are the convolutions left in float; `points` all mixtures measured, fewest float first. `within` says whether the
    budget could be met at all."""

    keep: frozenset[str]
    points: tuple[Point, ...]
    within: bool


ALL_INT8 = Mixture(frozenset(), (), within=True)


def search_mixture(
    keeping: Callable[[Collection[str]], ModelProto],
    order: Sequence[Sensitivity],
    budget: float,
    drop: float,
    drop_of: Callable[[ModelProto], float],
) -> Mixture:
    """The shortest prefix of `order` whose float form keeps `drop_of` (mIoU lost, 0 to 1) within `budget`; `drop` is what is
    lost with all of them in INT8, `keeping` makes the model in which convolutions stay in floating point.

    One convolution stays INT8 in any case: a model without any would not be an INT8 model.
    """
    total = sum(entry.macs for entry in order)
    measured = {0: Point(0, 1.0, drop)}

    def fits(kept: int) -> bool:
        if kept not in measured:
            lost = drop_of(keeping([entry.conv for entry in order[:kept]]))
            measured[kept] = Point(kept, sum(entry.macs for entry in order[kept:]) / total, lost)
        return measured[kept].drop <= budget

    most = len(order) - 1
    enough = 0
    while not fits(enough) and enough < most:
        enough = min(most, max(1, 2 * enough))
    if fits(enough):
        too_few = max((kept for kept in measured if kept < enough), default=-1)
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            enough, too_few = (middle, too_few) if fits(middle) else (enough, middle)
    else:
        enough = min(measured, key=lambda kept: measured[kept].drop)
    points = tuple(measured[kept] for kept in sorted(measured))
    return Mixture(frozenset(entry.conv for entry in order[:enough]), points, measured[enough].drop <= budget)
