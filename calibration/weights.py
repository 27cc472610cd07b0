"""The integers of one convolution's weights, and the bias that goes with them.

**Bias correction.** With rounded weights ŵ and an input x̂ that went through its own grid, an output's mean moves by ŵ·E[x̂] −
w·E[x], the expectations over all positions of all images. Nagel et al. 2019 (section 4.2) take E[x] per channel from the whole
map; an atrous convolution near the border reads padding instead, at rate 18 on 23×30 with most of its taps. So E is the *mean
patch* (`patches.PatchMean`), padding counted as the zeros that it is, and

    b' = b + w·E[x] − ŵ·E[x̂].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.grid import steps_of
from dlv3deploy.calibration.network import Conv
from dlv3deploy.calibration.patches import from_blocks, to_blocks
from dlv3deploy.calibration.rounding import DAMPING, learned_rounding, round_to_nearest, usable

SHRINK = np.linspace(0.3, 1.0, 36)  # of the step that covers the largest weight; what saturates may be worth it
Weight = NDArray[np.float32]  # out×(in/groups)×k×k


@dataclass(frozen=True)
class WeightGrid:
    """8 bits and a step per output channel, unless told otherwise."""

    bits: int = 8
    per_tensor: bool = False

    @property
    def levels(self) -> int:
        """The largest integer."""
        return (1 << (self.bits - 1)) - 1

    @property
    def is_coarse(self) -> bool:
        """Whether the step is worth searching for: fine grids do best when nothing saturates."""
        return self.bits < 8 or self.per_tensor


PER_CHANNEL = WeightGrid()


@dataclass(frozen=True)
class RoundedWeight:
    """`values` lie on the grid of `steps`, one per output channel or one in all."""

    values: Weight
    steps: NDArray[np.float32]


def rounded_weight(
    weight: Weight,
    conv: Conv,
    grid: WeightGrid,
    covariance: NDArray[np.float32] | None = None,
    damping: float = DAMPING,
) -> RoundedWeight:
    """Rounded to nearest without a covariance; with that of the conv's patches, learned (`rounding.py`), the steps too."""
    blocks = to_blocks(weight, conv)
    steps = steps_of(np.abs(weight).reshape(len(weight), -1).max(axis=1), grid.levels)
    if grid.per_tensor:
        steps = np.full_like(steps, steps.max())
    if covariance is None:
        rounded = round_to_nearest(blocks, _by_block(steps, blocks), grid.levels)
    else:
        if grid.is_coarse:
            steps = _searched(blocks, steps, grid, covariance)
        rounded = learned_rounding(blocks, _by_block(steps, blocks), covariance, grid.levels, damping)
    return RoundedWeight(from_blocks(rounded, weight, conv), steps[0] if grid.per_tensor else steps)


def corrected_bias(
    bias: NDArray[np.float32],
    weight: Weight,
    rounded: Weight,
    conv: Conv,
    mean: NDArray[np.float64],
    mean_on_grid: NDArray[np.float64],
) -> NDArray[np.float32]:
    """b' of the module's docstring; the means are in×k×k, of the float input and of the input on its grid."""
    out, inner = weight.shape[:2]
    group = np.arange(out) * conv.groups // out
    shape = (conv.groups, inner, *weight.shape[2:])
    wanted = (weight * mean.reshape(shape)[group]).sum(axis=(1, 2, 3))
    found = (rounded * mean_on_grid.reshape(shape)[group]).sum(axis=(1, 2, 3))
    return np.asarray(bias + wanted - found, np.float32)


def _by_block(steps: NDArray[np.float32], blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Steps of all output channels as B×R: each block has its own rows, or all of them when blocks are taps."""
    rows = blocks.shape[1]
    return np.broadcast_to(steps, (len(blocks), rows)) if rows == steps.size else steps.reshape(-1, rows)


def _searched(
    blocks: NDArray[np.float32], steps: NDArray[np.float32], grid: WeightGrid, covariance: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The steps with the smallest output error under rounding to nearest, the covariance's diagonal standing for all of it."""
    held, known = usable(covariance)
    variance = np.where(known[:, None] > 0, np.einsum("bkk->bk", held), 1)[:, None, :]
    errors = []
    for factor in SHRINK:
        rounded = round_to_nearest(blocks, _by_block(steps * np.float32(factor), blocks), grid.levels)
        error = ((rounded - blocks) ** 2 * variance).sum(axis=2)  # B×R
        errors.append(error.sum(axis=0) if error.shape[1] == steps.size else error.ravel())
    table = np.stack(errors)  # factors × output channels
    best = np.full(steps.size, table.sum(axis=1).argmin()) if grid.per_tensor else table.argmin(axis=0)
    return np.asarray(steps * SHRINK[best], np.float32)
