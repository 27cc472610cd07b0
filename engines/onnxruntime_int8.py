"""Q/DQ graphs in the form that ONNX Runtime's CPU kernels fuse.

With zero point 0 the runtime must keep the ReLU between a convolution and its quantisation, because −128 to −1 could occur, and
then runs the convolution in float. A tensor that is never negative needs those steps for nothing: with zero point −128 the same
range, 0 to the largest value, has 255 steps instead of 127, quantisation clips at 0 by itself, and the ReLU goes.
The Q/DQ file itself stays symmetric, as every TensorRT wants it; only the copy that becomes an engine is rewritten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

LOWEST, SIGNED_STEPS, UNSIGNED_STEPS = -128, 127, 255
# What these return is not negative when no input is; linear interpolation and means are convex combinations.
KEEP_SIGN = {
    "Add", "AveragePool", "Concat", "DequantizeLinear", "Expand", "GlobalAveragePool", "Identity", "MaxPool", "Mul",
    "QuantizeLinear", "ReduceMean", "Reshape", "Tile", "Transpose",
}  # fmt: skip
DATA_INPUTS = {"QuantizeLinear": 1, "DequantizeLinear": 1, "Expand": 1, "Reshape": 1, "Tile": 1, "ReduceMean": 1}


def with_constants_of_its_own(model: ModelProto) -> ModelProto:
    """A copy in which no two tensors share a scale or a zero point.

    ONNX Runtime replaces the zero points of INT8 weights where it keeps products exact without VNNI, and fails on the second
    tensor that one belongs to; whoever simplifies a graph makes them share what is alike.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants, owner, source = {w.name: w for w in result.graph.initializer}, dict[str, str](), dict[str, str]()
    for node in result.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        tensor = source.get(node.input[0], node.input[0])  # both nodes of a pair are of one tensor
        source[node.output[0]] = tensor
        for place, name in enumerate(node.input[1:3], 1):
            if name not in constants or owner.setdefault(name, tensor) == tensor:
                continue
            own = f"{name}/of/{tensor}"
            if own not in constants:
                result.graph.initializer.add().CopyFrom(constants[name])
                result.graph.initializer[-1].name = own
                constants[own] = result.graph.initializer[-1]
            node.input[place] = own
    return result


def with_unsigned_activations(model: ModelProto) -> ModelProto:
    """A copy in which Q/DQ pairs of tensors that cannot be negative use zero point −128; ranges stay as they were."""
    import onnx
    from onnx import numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {w.name: w for w in result.graph.initializer}
    unsigned = _not_negative(list(result.graph.node), constants)
    for node in result.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[0] not in unsigned:
            continue
        scale, zero_point = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        if scale.ndim or zero_point.dtype != np.int8 or zero_point != 0:
            continue
        names = [f"{name}/unsigned" for name in node.input[1:3]]
        values = np.float32(scale * SIGNED_STEPS / UNSIGNED_STEPS), np.int8(LOWEST)
        for name, value in zip(names, values, strict=True):
            if name not in constants:  # tensors share what is alike
                constants[name] = numpy_helper.from_array(np.asarray(value), name)
                result.graph.initializer.append(constants[name])
        node.input[1], node.input[2] = names
    return result


def _not_negative(nodes: list[NodeProto], constants: dict[str, TensorProto]) -> set[str]:
    """Tensors that are never negative, whatever the image; `nodes` are in the graph's order."""
    from onnx import numpy_helper

    found: set[str] = set()
    for node in nodes:
        if node.op_type == "Relu":
            found.update(node.output)
        elif node.op_type == "Clip":
            lowest = constants.get(node.input[1]) if len(node.input) > 1 else None
            if node.input[0] in found or (lowest is not None and float(numpy_helper.to_array(lowest)) >= 0):
                found.update(node.output)
        elif node.op_type in KEEP_SIGN and all(name in found for name in node.input[: DATA_INPUTS.get(node.op_type)]):
            found.update(node.output)
    return found
