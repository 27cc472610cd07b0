"""An ONNX graph as a torch module: node by node what the file says."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlv3deploy.core.graph import ports
from dlv3deploy.train.quantized.node import Node, not_known
from dlv3deploy.train.quantized.operators import OPERATORS

if TYPE_CHECKING:
    from onnx import ModelProto

Arrays = dict[str, NDArray[Any]]
Values = dict[str, Tensor]


class TorchGraph(nn.Module):
    """Outputs of images N×3×H×W float32, H×W as the graph has it, N whatever is given.

    Raises UserError for an operator that is neither in `OPERATORS` nor in `further`, which a subclass computes itself.
    """

    further: Collection[str] = ()

    def __init__(self, model: ModelProto) -> None:
        super().__init__()
        self.nodes = [Node.read(node) for node in model.graph.node]
        for node in self.nodes:
            if node.kind not in OPERATORS and node.kind not in self.further:
                raise not_known(node.kind, node.name, "is of an operator that is not known here")
        given, result = ports(model, "the INT8 model")
        self.input, self.output = given.name, result.name
        self.constants = Constants(arrays_of(model))
        self._last_uses = _last_uses(self.nodes, self.output)

    def forward(self, images: Tensor) -> Tensor:
        values = self.known() | {self.input: images}
        for _ in self.results(values):
            pass
        return values[self.output]

    def results(self, values: Values) -> Iterator[tuple[Node, Tensor]]:
        """Every node with its result, which stands in `values` as long as a later node reads it."""
        for node, finished in zip(self.nodes, self._last_uses, strict=True):
            values[node.output] = self.result(node, values)
            yield node, values[node.output]
            for name in finished:
                del values[name]

    def known(self) -> Values:
        """What is there before the images are seen."""
        return self.constants.tensors()

    def result(self, node: Node, values: Values) -> Tensor:
        """What a node makes of its inputs: maps lie where the images do, whole numbers and single ones on the CPU."""
        made = OPERATORS[node.kind](node, [values[name] if name else None for name in node.inputs])
        return made.to(values[self.input].device) if made.is_floating_point() and made.ndim else made


def arrays_of(model: ModelProto) -> Arrays:
    """All initializers by name."""
    from onnx import numpy_helper

    return {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}


class Constants(nn.Module):
    """Initializers: maps of numbers move with the module, whole numbers and single ones stay on the CPU."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        self.names = {name: f"constant_{i}" for i, name in enumerate(arrays)}
        self.fixed: Values = {}
        for name, values in arrays.items():
            tensor = torch.from_numpy(values.copy())
            if tensor.is_floating_point() and tensor.ndim:
                self.register_buffer(self.names[name], tensor)
            else:
                self.fixed[name] = tensor

    def tensors(self) -> Values:
        return {name: self.fixed[name] if name in self.fixed else getattr(self, key) for name, key in self.names.items()}


def _last_uses(nodes: list[Node], output: str) -> list[list[str]]:
    """For every node the results of nodes that nothing behind it reads, so that memory is that of what is still needed."""
    left = {node.output for node in nodes} - {output}
    finished: list[list[str]] = []
    for node in reversed(nodes):
        ending = left & {*node.inputs, node.output}
        left -= ending
        finished.append(sorted(ending))
    return finished[::-1]
