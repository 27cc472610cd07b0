"""Kernel: an atrous convolution as a matrix between the positions that its taps connect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.dilation import Window
from dlv3deploy.engines.rewrites.constants import Constant
from dlv3deploy.engines.rewrites.splice import Splice
from dlv3deploy.engines.rewrites.windows import windows_of

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Kernel:
    """A convolution of stride 1 that keeps the size of its map, with kernels of 1 or 3 whose outer taps reach less than the
    map's size and no less than half of it: along either axis every position is connected with one other at most."""

    windows: tuple[Window, Window]
    batch: int
    weight: Constant
    bias: Constant | None

    @classmethod
    def of(cls, node: ir.Node) -> Kernel | None:
        windows = windows_of(node)
        if windows is None or node.attributes.get_int("group", 1) != 1 or not all(map(_reaches_once, windows)):
            return None
        if all(window.kernel == 1 for window in windows) or len(node.inputs) < 2 or node.inputs[0] is None:
            return None
        weight, has_bias = Constant.behind(node.inputs[1]), len(node.inputs) > 2 and node.inputs[2] is not None
        bias = Constant.behind(node.inputs[2]) if has_bias else None
        batch = None if node.inputs[0].shape is None else node.inputs[0].shape[0]
        if weight is None or (has_bias and bias is None) or not isinstance(batch, int) or not weight.rows_can_move():
            return None
        return cls(windows, batch, weight, bias)

    @property
    def outputs(self) -> int:
        return int(self.weight.numpy().shape[0])

    @property
    def inputs(self) -> int:
        return int(self.weight.numpy().shape[1])

    @property
    def macs(self) -> int:
        """Padding included."""
        return self.weight.numpy().size * math.prod(window.outputs for window in self.windows)

    def on_other_rows(self, numbers: NDArray[Any], origin: NDArray[np.intp], splice: Splice) -> tuple[ir.Value, list[ir.Value]]:
        """Weights whose rows are each on the grid of the row `origin` of these, and the biases that go with them."""
        weight = self.weight.with_numbers(numbers, splice, origin)
        if self.bias is None:
            return weight, []
        return weight, [self.bias.with_numbers(self.bias.numpy()[origin], splice, origin)]


def mixing_weight(weight: NDArray[Any], high: int, wide: int) -> NDArray[Any]:
    """i×j×O×i'×j'×C: what output position (i, j) of high×wide takes from input position (i', j'), of a weight O×C×k×k."""
    outputs, inputs, tall, broad = weight.shape
    found = np.zeros((high, wide, outputs, high, wide, inputs), weight.dtype)
    for i, j, y, x in np.ndindex(high, wide, high, wide):
        down, across = y - i + tall // 2, x - j + broad // 2
        if 0 <= down < tall and 0 <= across < broad:
            found[i, j, :, y, x, :] = weight[:, :, down, across]
    return found


def _reaches_once(window: Window) -> bool:
    if window.stride != 1 or window.kernel not in (1, 3):
        return False
    padding = window.rate * (window.kernel // 2)
    is_same = (window.before, window.after) == (padding, padding)
    return is_same and (window.kernel == 1 or window.rate < window.size <= 2 * window.rate)
