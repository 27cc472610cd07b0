"""Weights as a graph holds them, an initializer or one behind nodes that put it on a grid, and parts of them in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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

    def cut(self, axes: Mapping[int, Part], name: str, before: ir.Node) -> ir.Value:
        """Parts of the numbers through nodes of their own, in front of `before`; `name` begins the names of what is new."""
        import onnx_ir as ir

        graph, numbers = before.graph, self.numpy()
        assert isinstance(graph, ir.Graph)  # passes go through the nodes of a graph
        for axis, part in axes.items():
            numbers = np.take(numbers, part, axis)
        kept = np.ascontiguousarray(numbers)
        tensor = ir.tensor(kept, dtype=self.root.dtype, name=f"{name}/{self.root.name}")
        value = ir.Value(name=tensor.name, const_value=tensor, shape=ir.Shape(kept.shape), type=self.root.type)
        graph.register_initializer(value)
        for node in self.nodes:
            copy = ir.node(
                node.op_type,
                [value, *node.inputs[1:]],
                {key: attribute.value for key, attribute in node.attributes.items()},
                name=f"{name}/{node.name}",
            )
            copy.outputs[0].name = f"{name}/{node.outputs[0].name}"
            copy.outputs[0].shape, copy.outputs[0].type = value.shape, node.outputs[0].type
            graph.insert_before(before, copy)
            value = copy.outputs[0]
        return value


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
