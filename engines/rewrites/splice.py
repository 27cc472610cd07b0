"""Splice: new nodes and numbers in front of a node of a graph, and a new value in the place of an old one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir


class Splice:
    """Everything that is added stands before `node` and has a name that begins with the node's.

    Shapes of what is added are inferred afterwards (`rewrite.py`); a value that takes another's place takes its shape, too.
    """

    def __init__(self, node: ir.Node) -> None:
        import onnx_ir as ir

        assert isinstance(node.graph, ir.Graph)  # rewrites go through the nodes of a graph
        self.node, self.graph = node, node.graph
        self.name = node.name or node.outputs[0].name or ""
        self.taken = {value.name for other in self.graph for value in other.outputs}

    def constant(self, numbers: NDArray[Any], name: str, dtype: ir.DataType | None = None) -> ir.Value:
        """An initializer."""
        import onnx_ir as ir

        tensor = ir.tensor(np.ascontiguousarray(numbers), dtype=dtype, name=self._unused(name))
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(numbers.shape)
        value = ir.Value(name=tensor.name, const_value=tensor, shape=shape, type=kind)
        self.graph.register_initializer(value)
        return value

    def add(self, kind: str, inputs: list[ir.Value | None], name: str, **attributes: Any) -> ir.Value:
        """The output of a new node, of the type of its first input."""
        import onnx_ir as ir

        own = self._unused(name)
        node = ir.node(kind, inputs, attributes, name=own)
        self.graph.insert_before(self.node, node)
        result = node.outputs[0]
        result.name, result.type = own, None if inputs[0] is None else inputs[0].type
        return result

    def put_in_place(self, new: ir.Value) -> None:
        """`new` is read wherever the node's result was, under its name; the node is taken out."""
        old = self.node.outputs[0]
        new.shape, new.type, name = old.shape, old.type, old.name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name, new.name = f"{name}/before", name
        self.graph.remove(self.node, safe=True)

    def _unused(self, name: str) -> str:
        """What is copied from one place for several would have the same name twice."""
        wanted, number = f"{self.name}/{name}", 1
        while wanted in self.taken or wanted in self.graph.initializers:
            number += 1
            wanted = f"{self.name}/{name}/{number}"
        self.taken.add(wanted)
        return wanted
