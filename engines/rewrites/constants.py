"""Weights as a graph holds them, an initializer or one behind nodes that put it on a grid, and parts of them in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.engines.rewrites.splice import Splice

if TYPE_CHECKING:
    import onnx_ir as ir

Part = Sequence[int]  # indices along an axis
REFERENCE_OPSET = 21  # in which onnx can compute pairs; what these say is the same since 13
BETWEEN = ("QuantizeLinear", "DequantizeLinear", "Cast")


@dataclass(frozen=True)
class Constant:
    """`root` holds the numbers, `nodes` turn them into what is read, the first one first."""

    root: ir.Value
    nodes: tuple[ir.Node, ...]

    @classmethod
    def behind(cls, value: ir.Value | None) -> Constant | None:
        """What `value` is computed from, if that is one initializer alone."""
        nodes = list["ir.Node"]()
        while value is not None and not value.is_initializer():
            node = value.producer()
            if node is None or node.op_type not in BETWEEN or not _has_fixed_grid(node):
                return None
            nodes.insert(0, node)
            value = node.inputs[0]
        return None if value is None or value.const_value is None else cls(value, tuple(nodes))

    def numpy(self) -> NDArray[Any]:
        """The numbers of `root`, before any node."""
        assert self.root.const_value is not None  # or it would be no constant
        return self.root.const_value.numpy()

    def values(self) -> NDArray[np.float32]:
        """What is read, grids and all, in float32."""
        if not self.nodes:
            return np.asarray(self.numpy(), np.float32)
        import onnx_ir as ir
        from onnx import TensorProto, helper
        from onnx.reference import ReferenceEvaluator

        read = {value.name: value.const_value for node in self.nodes for value in node.inputs if value and value.const_value}
        result = helper.make_tensor_value_info(self.nodes[-1].outputs[0].name or "", TensorProto.UNDEFINED, None)
        weights = [ir.to_proto(ir.tensor(tensor.numpy(), tensor.dtype, name)) for name, tensor in read.items()]
        part = helper.make_graph([ir.to_proto(node) for node in self.nodes], "constant", [], [result], weights)
        opsets = [helper.make_opsetid("", REFERENCE_OPSET)]
        (found,) = ReferenceEvaluator(helper.make_model(part, opset_imports=opsets)).run(None, {})
        return np.asarray(found, np.float32)

    def can_be_cut(self, axes: Mapping[int, Part]) -> bool:
        """Whether no grid goes along one of `axes`: parts of those would need parts of their scales."""
        return all(_grid_axis(node) not in axes for node in self.nodes)

    def cut(self, axes: Mapping[int, Part], splice: Splice) -> ir.Value:
        """Parts of the numbers, through nodes of their own."""
        numbers = self.numpy()
        for axis, part in axes.items():
            numbers = np.take(numbers, part, axis)
        return self.with_numbers(numbers, splice)

    def rows_can_move(self) -> bool:
        """Whether grids have one step, or one for each row (axis 0), around a zero that is 0."""
        zeros = (node.inputs[2] for node in self.nodes if len(node.inputs) > 2)
        are_symmetric = all(zero is None or zero.const_value is None or not zero.const_value.numpy().any() for zero in zeros)
        return are_symmetric and all(_grid_axis(node) in (None, 0) for node in self.nodes)

    def with_numbers(self, numbers: NDArray[Any], splice: Splice, origin: NDArray[np.intp] | None = None) -> ir.Value:
        """Other numbers through nodes of their own. Where these have a step for each row, a row takes that of `origin`, which
        it is by default itself."""
        value = splice.constant(numbers, self.root.name or "constant", self.root.dtype)
        for node in self.nodes:
            grid = list(node.inputs[1:])
            if origin is not None and _grid_axis(node) == 0:
                grid = [_rows_of(part, origin, splice) for part in grid]
            attributes = {key: attribute.value for key, attribute in node.attributes.items()}
            value = splice.add(node.op_type, [value, *grid], node.outputs[0].name or node.op_type, **attributes)
            value.type = node.outputs[0].type
        return value


def _rows_of(value: ir.Value | None, origin: NDArray[np.intp], splice: Splice) -> ir.Value | None:
    if value is None or value.const_value is None:
        return value
    return splice.constant(value.const_value.numpy()[origin], value.name or "grid", value.dtype)


def _has_fixed_grid(node: ir.Node) -> bool:
    return all(value is None or value.is_initializer() for value in node.inputs[1:])


def _grid_axis(node: ir.Node) -> int | None:
    """Along which axis a pair has a step for each index; None for one step in all."""
    if node.op_type == "Cast":
        return None
    scale = node.inputs[1]
    if scale is None or scale.const_value is None or not scale.const_value.shape:
        return None
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 1
