"""Sub-grids: an atrous convolution whose taps reach one step of its rate at most is a dense 1×1 convolution on fewer positions.

Positions a rate r apart form r·r sub-grids, and an atrous convolution never leaves one. On a map of up to 2r×2r a sub-grid has
2×2 positions; with these as channels (C → 4C) the 3×3 kernel is a matrix 4C×4C, the same for all sub-grids: 16 products for
four positions where the kernel makes 36, of which 20 are with padding. A side that is not a multiple of r is filled up with
zeros: on 33×33 rate 18 gains by this, rate 24 hardly does (`regions.py` fills nothing up).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dlv3deploy.core.dilation import Window
from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.rewrites.moving import ROWS, Moved, part_of, shaped
from dlv3deploy.engines.rewrites.reach import Kernel, mixing_weight
from dlv3deploy.engines.rewrites.splice import Splice

if TYPE_CHECKING:
    import onnx_ir as ir

NAME = "sub-grids"
APART = [0, 1, 2, 4, 3, 5]  # N, C, in the sub-grid, which sub-grid: rows, then columns; its own inverse


def regroup_to_sub_grids(graph: ir.Graph) -> list[Change]:
    """Change every atrous convolution of `graph`, with shapes inferred, that has fewer multiply-accumulates so."""
    return [change for node in list(graph) if (change := _regrouped(node)) is not None]


def _regrouped(node: ir.Node) -> Change | None:
    kernel, moved = Kernel.of(node), Moved.input_of(node)
    if kernel is None or moved is None:
        return None
    (high, down), (wide, across) = (_sub_grid(window) for window in kernel.windows)
    after = kernel.outputs * kernel.inputs * (high * wide) ** 2 * down * across
    if after >= kernel.macs:
        return None
    splice, batch = Splice(node), kernel.batch
    height, width = (window.size for window in kernel.windows)
    value = moved.value
    if (filled := [0] * 6 + [high * down - height, wide * across - width]) != [0] * 8:
        value = splice.add("Pad", [value, splice.constant(np.array(filled, np.int64), "fill/pads")], "filled")
    apart = shaped(value, [batch, kernel.inputs, high, down, wide, across], splice, "apart")
    together = splice.add("Transpose", [apart], "together", perm=APART)
    channels = shaped(together, [batch, kernel.inputs * high * wide, down, across], splice, "channels")
    numbers = mixing_weight(kernel.weight.numpy(), high, wide).transpose(2, 0, 1, 5, 3, 4)  # O, i, j, C, i', j'
    origin = np.repeat(np.arange(kernel.outputs), high * wide)
    weight, bias = kernel.on_other_rows(numbers.reshape(len(origin), -1, 1, 1), origin, splice)
    result = splice.add("Conv", [moved.read(channels, splice, "read"), weight, *bias], "dense", kernel_shape=[1, 1])
    back = shaped(result, [batch, kernel.outputs, high, wide, down, across], splice, "back")
    whole = shaped(
        splice.add("Transpose", [back], "whole", perm=APART), [batch, kernel.outputs, high * down, wide * across], splice, "map"
    )
    if filled[ROWS + 4 :] != [0, 0]:
        whole = part_of(whole, range(height), range(width), splice, "cut")
    splice.put_in_place(whole)
    return Change(splice.name, NAME, f"1×1 on {down}×{across} of {high * wide} times the channels", kernel.macs, after)


def _sub_grid(window: Window) -> tuple[int, int]:
    """Positions in a sub-grid, and the number of sub-grids, along one axis."""
    if window.kernel == 1:
        return 1, window.size
    return -(-window.size // window.rate), window.rate
