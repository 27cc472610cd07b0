"""Strategy: how often a frame is looked at, and at which sizes (paper, sections 4.1 and 4.2, Tables 4 and 6).

At inference the paper resizes the picture by several scales, adds the left-right mirrored picture of each, and averages the
class probabilities of all of them before it takes the best class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dlv3deploy.core.errors import UserError

PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # section 4.2
SMALLEST_SCALE, LARGEST_SCALE = 0.1, 4.0
SHARED = 8  # windows beside each other share at least an eighth of their side


@dataclass(frozen=True)
class Strategy:
    """The scales of the engine's input size, and whether each picture is seen mirrored as well. Raises UserError."""

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        given = f"scales {','.join(f'{scale:g}' for scale in self.scales)}"
        if not self.scales:
            raise UserError("no scale", "a picture is seen at one at least", "give 1, or several as 0.5,1,1.5")
        if not all(SMALLEST_SCALE <= scale <= LARGEST_SCALE for scale in self.scales):
            raise UserError(given, f"a scale is a number from {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}", "write 0.5,1,1.5")
        if len(set(self.scales)) < len(self.scales):
            raise UserError(given, "the same scale twice changes only its weight", "give each scale once")

    def __str__(self) -> str:
        """`scales 0.5, 1, mirrored too`"""
        scales = f"scale{'s' * (len(self.scales) > 1)} {', '.join(f'{scale:g}' for scale in self.scales)}"
        return f"{scales}, mirrored too" if self.flip else scales


PLAIN = Strategy()


def scaled_side(side: int, scale: float, output_stride: int) -> int:
    """`side` times `scale`, rounded to what lies as `side` does to the multiples of the output stride: 513 to 257 or 897."""
    remainder = side % output_stride
    fewest = 0 if remainder > 1 else 1
    steps = math.floor((side * scale - remainder) / output_stride + 0.5)
    return remainder + max(fewest, steps) * output_stride


def window_starts(side: int, window: int) -> list[int]:
    """Where windows begin that together cover `side` pixels, evenly spread; negative for a side that is smaller than one.

    A smaller picture lies in the middle of its only window.
    """
    if side <= window:
        return [-((window - side) // 2)]
    shared = min(window - 1, max(1, window // SHARED))
    last = math.ceil((side - window) / (window - shared))
    return [i * (side - window) // last for i in range(last + 1)]
