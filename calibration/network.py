"""Network: a graph at one input size as calibration sees it: its convolutions, who makes and who reads what, weights as
arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.dilation import Window
from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.graph import conv_windows, fix_input, give_own_names, simplified, tensor_shapes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Conv:
    """One two-dimensional convolution with constant weights.

    `weight` and `bias` name initializers that no other node reads; weights are out×(in/groups)×k×k.
    """

    name: str
    input: str
    output: str
    weight: str
    bias: str
    groups: int
    rows: Window
    columns: Window


class Network:
    """A float model with batch norm folded, at one input size. The model that was given is not changed.

    Raises CheckFailed when its weights are not finite.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model

    @classmethod
    def prepared(cls, model: ModelProto, height: int, width: int) -> Network:
        """From any float ONNX model: simplified, of fixed size, every convolution with weights and a bias of its own."""
        shape = (1, 3, height, width)
        network = fix_input(simplified(_with_known_shapes(simplified(fix_input(model, shape)))), shape)
        give_own_names(network)
        _give_own_weights(network)
        result = cls(network)
        for name, values in result.weights.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise CheckFailed(f"weight {name} holds values that are not finite; train or export the model again")
        return result

    def with_weights(self, changed: Mapping[str, NDArray[Any]]) -> Network:
        """A copy in which these initializers hold other values of the same shape."""
        import onnx
        from onnx import numpy_helper

        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        for initializer in result.graph.initializer:
            if initializer.name in changed:
                values = np.asarray(changed[initializer.name], self.weights[initializer.name].dtype)
                if values.shape != tuple(initializer.dims):
                    raise ValueError(f"{initializer.name} is {tuple(initializer.dims)}, was given {values.shape}")
                initializer.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), initializer.name))
        return Network(result)

    @cached_property
    def nodes(self) -> tuple[NodeProto, ...]:
        return tuple(self.model.graph.node)

    @cached_property
    def weights(self) -> dict[str, NDArray[Any]]:
        from onnx import numpy_helper

        return {w.name: numpy_helper.to_array(w) for w in self.model.graph.initializer}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return tensor_shapes(self.model.graph) | {name: values.shape for name, values in self.weights.items()}

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        return {output: node for node in self.nodes for output in node.output}

    @cached_property
    def consumers(self) -> dict[str, list[NodeProto]]:
        """For every tensor the nodes that read it, in the graph's order."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def input(self) -> str:
        name: str = next(i.name for i in self.model.graph.input if i.name not in self.weights)
        return name

    @cached_property
    def output(self) -> str:
        name: str = self.model.graph.output[0].name
        return name

    @cached_property
    def convs(self) -> tuple[Conv, ...]:
        """In the graph's order; a convolution whose weights or bias are computed is not among them."""
        found = []
        for node in self.nodes:
            constant = node.op_type == "Conv" and all(name in self.weights for name in node.input[1:])
            if not constant or len(self.shapes.get(node.input[0], ())) != 4:
                continue
            rows, columns = conv_windows(node, self.shapes[node.input[0]], self.shapes[node.input[1]])
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            found.append(Conv(node.name, node.input[0], node.output[0], node.input[1], node.input[2], groups, rows, columns))
        return tuple(found)

    def macs(self, conv: Conv) -> int:
        """Multiply-accumulates, padding included."""
        return int(self.weights[conv.weight].size) * conv.rows.outputs * conv.columns.outputs


def reads(node: NodeProto) -> set[str]:
    """The tensors that a node needs, those that its branches read included."""
    return {name for name in node.input if name} | read_inside(node)


def read_inside(node: NodeProto) -> set[str]:
    """What the branches of an If, or the body of a Loop, read of the graph around them."""
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inner = [node for body in bodies for node in body.node]
    results = {result.name for body in bodies for result in body.output}
    return results.union(*(node.input for node in inner), *map(read_inside, inner))


def _with_known_shapes(model: ModelProto) -> ModelProto:
    """Shapes that a graph of fixed size computes for itself, as constants.

    PyTorch writes image pooling's way back to the map's size as ConstantOfShape and Expand, which shape inference does not look
    through: without this nothing is known of the ASPP behind it.
    """
    from onnx import numpy_helper

    values = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in values or values[node.input[0]].size != 1:
            nodes.append(node)
            continue
        filling = next((numpy_helper.to_array(a.t).ravel()[0] for a in node.attribute), np.float32(0))
        vector = np.full(values[node.input[0]], filling, filling.dtype)
        model.graph.initializer.append(numpy_helper.from_array(vector, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _give_own_weights(model: ModelProto) -> None:
    """Every Conv gets weights and a bias that no other node reads, so that they can be changed alone."""
    from onnx import numpy_helper

    values = {w.name: w for w in model.graph.initializer}
    taken = {name for node in model.graph.node for name in node.input[: 1 if node.op_type == "Conv" else None]}
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in values:
            continue
        channels = values[node.input[1]].dims[0]
        if len(node.input) < 3 or not node.input[2]:
            del node.input[2:]
            node.input.append(f"{node.name}/bias")
            values[node.input[2]] = numpy_helper.from_array(np.zeros(channels, np.float32), node.input[2])
            model.graph.initializer.append(values[node.input[2]])
        for position in (1, 2):
            name = node.input[position]
            if name in taken and name in values:
                copy = numpy_helper.from_array(numpy_helper.to_array(values[name]), f"{node.name}/{name}")
                model.graph.initializer.append(copy)
                values[copy.name] = copy
                node.input[position] = copy.name
            taken.add(node.input[position])
