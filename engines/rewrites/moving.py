"""Moving data about in front of a convolution: what was put on an INT8 grid is moved as the integers that it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlv3deploy.engines.rewrites.splice import Splice

if TYPE_CHECKING:
    import onnx_ir as ir

ROWS, COLUMNS = 2, 3  # axes of N×C×H×W


@dataclass(frozen=True)
class Moved:
    """`value` is what can be moved: a convolution's input, or the integers in front of its DequantizeLinear. `grid` are scale
    and zero point, which it is read with again."""

    value: ir.Value
    grid: tuple[ir.Value | None, ...] = ()

    @classmethod
    def input_of(cls, node: ir.Node) -> Moved | None:
        """None for a node without an input."""
        value = node.inputs[0]
        pair = None if value is None else value.producer()
        if value is None or pair is None or pair.op_type != "DequantizeLinear":
            return None if value is None else cls(value)
        scale, zero = [*pair.inputs[1:], None][:2]
        numbers = None if zero is None else zero.const_value
        if scale is None or scale.const_value is None or scale.const_value.shape or pair.inputs[0] is None:
            return cls(value)
        is_symmetric = numbers is not None and not np.any(numbers.numpy())
        return cls(pair.inputs[0], tuple(pair.inputs[1:])) if is_symmetric else cls(value)

    def read(self, moved: ir.Value, splice: Splice, name: str) -> ir.Value:
        """What was moved, as the convolution reads it."""
        if not self.grid:
            return moved
        found = splice.add("DequantizeLinear", [moved, *self.grid], name)
        found.type = None if self.grid[0] is None else self.grid[0].type
        return found


def shaped(value: ir.Value, shape: list[int], splice: Splice, name: str) -> ir.Value:
    return splice.add("Reshape", [value, splice.constant(np.array(shape, np.int64), f"{name}/shape")], name)


def part_of(value: ir.Value, rows: range, columns: range, splice: Splice, name: str) -> ir.Value:
    """The rectangle of a map."""
    limits = ([rows.start, columns.start], [rows.stop, columns.stop], [ROWS, COLUMNS])
    words = ("starts", "ends", "axes")
    bounds = [splice.constant(np.array(n, np.int64), f"{name}/{word}") for n, word in zip(limits, words, strict=True)]
    return splice.add("Slice", [value, *bounds], name)
