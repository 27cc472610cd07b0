"""Small charts as numbers: where lines, areas and labels stand in an SVG of given size. Templates draw them.

Coordinates are pixels from the upper left corner, rounded to a tenth; no text of a caller is part of a path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 20.0, 30.0  # what axes and their labels take
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    place: float
    text: str


@dataclass(frozen=True)
class Line:
    """A polyline as an SVG path; `kind` names its colour in the style sheet."""

    kind: str
    path: str


@dataclass(frozen=True)
class Chart:
    """`areas` are filled, `lines` are not; `mark` is a vertical line with a text beside it."""

    width: float
    height: float
    label: str
    x_name: str
    y_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    areas: tuple[Line, ...] = ()
    mark: Tick | None = None

    @property
    def plot(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of what the axes enclose."""
        return LEFT, TOP, self.width - RIGHT, self.height - BOTTOM


@dataclass(frozen=True)
class Scale:
    """From values low … high to pixels start … stop."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + min(1.0, max(0.0, share)) * (self.stop - self.start), 1)

    def ticks(self, count: int) -> tuple[Tick, ...]:
        """At about `count` round values."""
        return tuple(Tick(self(value), f"{value:g}") for value in round_values(self.low, self.high, count))


def scales(width: float, height: float, x: tuple[float, float], y: tuple[float, float]) -> tuple[Scale, Scale]:
    """Both axes of a chart of this size over these ranges; y grows upwards."""
    return Scale(*x, LEFT, width - RIGHT), Scale(*y, height - BOTTOM, TOP)


def round_values(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between `low` and `high`, about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def polyline(points: Points, x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{x(across):g} {y(up):g}" for across, up in points) if points else ""


def stairs(edges: Sequence[float], heights: Sequence[float], x: Scale, y: Scale) -> str:
    """A closed area under steps: `heights[i]` from `edges[i]` to `edges[i + 1]`."""
    if not heights:
        return ""
    path = [f"M{x(edges[0]):g} {y(y.low):g}"]
    for height, stop in zip(heights, edges[1:], strict=True):
        path.append(f"V{y(height):g}H{x(stop):g}")
    return "".join([*path, f"V{y(y.low):g}Z"])
