"""A Q/DQ graph as a torch module, with weights, biases and steps that can be learned and put back into the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlv3deploy.train.quantized.convolution import QuantizedWeights, largest_integer
from dlv3deploy.train.quantized.fake_quantize import Grid
from dlv3deploy.train.quantized.graph import Arrays, TorchGraph, Values, arrays_of
from dlv3deploy.train.quantized.node import Node, not_known
from dlv3deploy.train.quantized.pairs import DEQUANTIZE, QUANTIZE, Pair, find_pairs, shared_steps

if TYPE_CHECKING:
    from onnx import ModelProto


class QuantizedGraph(TorchGraph):
    """Fake-quantised as the file's Q/DQ pairs say. What is kept in floating point has no grid, and stays as it is.

    Raises UserError also for pairs in another form than calibration's.
    """

    further = (QUANTIZE, DEQUANTIZE)

    def __init__(self, model: ModelProto) -> None:
        super().__init__(model)
        arrays = arrays_of(model)
        self.pairs = find_pairs(self.nodes, arrays)
        self.grid_of = _grids(self.nodes, self.pairs, arrays)
        self.weights_of, self.bias_of = _weights(self.nodes, self.pairs, arrays)
        self.grids = nn.ModuleList(dict.fromkeys(self.grid_of.values()))
        self.weights = nn.ModuleList(self.weights_of.values())

    def known(self) -> Values:
        return super().known() | {name: weights.bias for name, weights in self.bias_of.items()}

    def result(self, node: Node, values: Values) -> Tensor:
        """Q rounds, DQ hands on: what lies between them are the real numbers that the integers stand for."""
        if node.kind == DEQUANTIZE:
            return values[node.inputs[0]]
        if node.kind != QUANTIZE:
            return super().result(node, values)
        pair = self.pairs[node.output]
        if pair.tensor in self.weights_of:
            return self.weights_of[pair.tensor].weight
        on_grid: Tensor = self.grid_of[pair.step](values[pair.tensor])
        return on_grid

    def steps(self) -> dict[str, float]:
        """The step of every activation that goes through a pair."""
        inside = (pair for pair in self.pairs.values() if pair.step in self.grid_of)
        return {pair.tensor: float(self.grid_of[pair.step].step.detach()) for pair in inside}

    def written_into(self, model: ModelProto) -> ModelProto:
        """A copy of `model`, which this was made from, with the weights (on their grids), biases and steps of now."""
        import onnx
        from onnx import numpy_helper

        learned: Values = {name: weights.weight for name, weights in self.weights_of.items()}
        learned |= {name: weights.bias for name, weights in self.bias_of.items()}
        learned |= {name: grid.step for name, grid in self.grid_of.items()}
        learned |= {p.step: self.weights_of[p.tensor].grid.step for p in self.pairs.values() if p.tensor in self.weights_of}
        result = onnx.ModelProto()
        result.CopyFrom(model)
        for initializer in result.graph.initializer:
            if initializer.name in learned:
                values = learned[initializer.name].detach().cpu().numpy().reshape(tuple(initializer.dims))
                initializer.CopyFrom(numpy_helper.from_array(values.copy(order="C"), initializer.name))
        onnx.checker.check_model(result)
        return result


def _grids(nodes: list[Node], pairs: dict[str, Pair], arrays: Arrays) -> dict[str, Grid]:
    """The grid of every activation's step, by the step's name; one grid for those that share a step."""
    leaders, grids = shared_steps(nodes, pairs, arrays), dict[str, Grid]()
    for pair in pairs.values():
        if pair.tensor not in arrays:
            lead = leaders[pair.step]
            if lead not in grids:
                grids[lead] = Grid(torch.from_numpy(arrays[lead].copy()))
            grids[pair.step] = grids[lead]
    return grids


def _weights(
    nodes: list[Node], pairs: dict[str, Pair], arrays: Arrays
) -> tuple[dict[str, QuantizedWeights], dict[str, QuantizedWeights]]:
    """What every INT8 convolution learns, by the name of its weights and by that of its bias."""
    read = {node.output: pairs[node.inputs[0]] for node in nodes if node.kind == DEQUANTIZE}
    convs = [node for node in nodes if node.kind == "Conv" and node.inputs[1] in read]
    for node in convs:
        if node.inputs[0] not in read or len(node.inputs) < 3 or node.inputs[2] not in arrays:
            raise not_known(node.kind, node.name, "has INT8 weights without an INT8 input and a constant bias")
    inside = [read[node.inputs[1]] for node in convs]
    largest = largest_integer([(arrays[pair.tensor], arrays[pair.step]) for pair in inside])
    by_weight, by_bias = {}, {}
    for node, pair in zip(convs, inside, strict=True):
        input_step = float(arrays[read[node.inputs[0]].step])
        learned = QuantizedWeights(arrays[pair.tensor], arrays[node.inputs[2]], arrays[pair.step], input_step, largest)
        by_weight[pair.tensor] = by_bias[node.inputs[2]] = learned
    return by_weight, by_bias
