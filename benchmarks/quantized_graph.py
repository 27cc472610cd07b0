"""What a Q/DQ graph says of itself: how much of its work is INT8, and how many pairs stand in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlv3deploy.core.graph import convolutions
from dlv3deploy.engines.prepare import layer_precision

if TYPE_CHECKING:
    from onnx import ModelProto


def int8_share_of_macs(model: ModelProto, height: int, width: int) -> float:
    """The share, 0 to 1, of the convolutions' multiply-accumulates at this input size whose convolution is INT8.

    INT8 is a convolution that reads a DequantizeLinear on its data and on its weights. 0 in a graph without convolutions.
    """
    macs = {found.name: found.macs for found in convolutions(model, height, width)}
    int8 = {name for name, precision in layer_precision(model).items() if precision == "int8"}
    total = sum(macs.values())
    return sum(count for name, count in macs.items() if name in int8) / total if total else 0.0


def activation_pairs(model: ModelProto) -> int:
    """How many tensors that are no constants pass through QuantizeLinear and DequantizeLinear.

    Weights are left out: some tools store them as integers with a DequantizeLinear alone, others as floats with a pair.
    """
    constants = {weight.name for weight in model.graph.initializer}
    constants |= {output for node in model.graph.node if node.op_type == "Constant" for output in node.output}
    quantised = {
        output
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
        for output in node.output
    }
    return sum(node.op_type == "DequantizeLinear" and node.input[0] in quantised for node in model.graph.node)
