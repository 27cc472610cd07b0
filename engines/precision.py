"""FP16 and BF16 as types in the ONNX file: strongly typed TensorRT takes the precision from the graph and from nowhere else."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.graph import spatial_shapes

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

# A mean over a whole map sums thousands of values, which FP16 cannot hold, and classes are told apart by small differences.
KEPT_IN_FLOAT32 = ("GlobalAveragePool", "ReduceMean", "Softmax", "ArgMax")


def to_float16(model: ModelProto) -> ModelProto:
    """A copy of a graph of fixed shape that computes in FP16 between a float32 input and a float32 (or integer) output.

    Raises CheckFailed when a weight does not fit in FP16, UserError when the converter is not installed.
    """
    from onnx import TensorProto, numpy_helper

    limit = float(np.finfo(np.float16).max)
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.abs(numpy_helper.to_array(weight)).max(initial=0.0) > limit:
            raise CheckFailed(
                f"weight {weight.name} exceeds {limit:.0f}, the largest FP16 number; keep the engine in FP32, or use BF16"
            )
    return _in_half(model)


def to_bfloat16(model: ModelProto) -> ModelProto:
    """As `to_float16`, in BF16, which has the range of FP32 and 8 bits of precision. Raises UserError as that does."""
    from onnx import TensorProto

    converted, exact = _in_half(model), {weight.name: weight for weight in model.graph.initializer}
    for weight in converted.graph.initializer:
        _retype(weight, exact.get(weight.name, weight))
    for node in converted.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
            if attribute.HasField("t"):
                _retype(attribute.t, attribute.t)
    for value in (*converted.graph.value_info, *converted.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    return converted


def kept_in_half(model: ModelProto) -> ModelProto:
    """A copy of a quantised graph in which the convolutions that stayed in floating point compute in FP16, between casts.

    Without it a strongly typed TensorRT runs them in FP32, and a weakly typed one everything besides INT8. One with a weight
    that FP16 cannot hold stays as it is.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    floats = {w.name: w for w in graph.initializer if w.data_type == TensorProto.FLOAT}
    limit, nodes, halves = float(np.finfo(np.float16).max), [], dict[str, TensorProto]()
    for node in graph.node:
        constants = [name for name in node.input[1:] if name]
        values = {name: numpy_helper.to_array(floats[name]) for name in constants if name in floats}
        fits = len(values) == len(constants) and all(np.abs(value).max(initial=0.0) <= limit for value in values.values())
        if node.op_type != "Conv" or not fits:
            nodes.append(node)
            continue
        halves |= {name: numpy_helper.from_array(value.astype(np.float16), f"{name}/half") for name, value in values.items()}
        half = onnx.NodeProto()
        half.CopyFrom(node)
        given, made = f"{node.name}/given/half", f"{node.name}/made/half"
        half.output[0] = made
        half.input[:] = [given, *(f"{name}/half" if name else "" for name in node.input[1:])]
        to_half = helper.make_node("Cast", [node.input[0]], [given], f"{node.name}/to_half", to=TensorProto.FLOAT16)
        back = helper.make_node("Cast", [made], [node.output[0]], f"{node.name}/from_half", to=TensorProto.FLOAT)
        nodes += [to_half, half, back]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(halves.values())
    read = {name for node in graph.node for name in node.input}
    for name in halves.keys() - read:
        graph.initializer.remove(floats[name])
    return result


NARROWED = {"fp16": to_float16, "bf16": to_bfloat16}


def _retype(held: TensorProto, exact: TensorProto) -> None:
    """Replace a tensor of FP16 by the values of `exact` in BF16."""
    import ml_dtypes
    from onnx import TensorProto, numpy_helper

    if held.data_type == TensorProto.FLOAT16:
        name, values = held.name, numpy_helper.to_array(exact)
        held.CopyFrom(numpy_helper.from_array(values.astype(np.float32).astype(ml_dtypes.bfloat16), name))


def _in_half(model: ModelProto) -> ModelProto:
    try:
        from onnxconverter_common import float16
    except ImportError as error:
        raise UserError("the FP16 converter", "is not installed", "install dlv3deploy[fp16]") from error
    settings: dict[str, Any] = {
        "keep_io_types": True,
        "disable_shape_infer": False,
        "max_finite_val": float(np.finfo(np.float16).max),  # beyond this the converter clips
        "min_positive_val": float(np.finfo(np.float16).smallest_subnormal),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # tiny weights that round to the smallest FP16 number, thousands of them
        converted: ModelProto = float16.convert_float_to_float16(
            model, op_block_list=list(KEPT_IN_FLOAT32), node_block_list=_interpolations(model), **settings
        )
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    return converted


def _interpolations(model: ModelProto) -> list[str]:
    """Nodes that mix values of a map; spreading the one value of image pooling is exact in any type."""
    shapes = spatial_shapes(model.graph)
    mixing = (node for node in model.graph.node if node.op_type == "Resize" and shapes.get(node.input[0]) != (1, 1))
    return [node.name for node in mixing]


def is_quantized(model: ModelProto) -> bool:
    """Whether a graph has its quantisation written in it."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def types_in(model: ModelProto) -> set[str]:
    """The types besides FP32 that a graph computes in: "fp16" and "bf16" of stored weights, "int8" where it quantises."""
    from onnx import TensorProto

    stored = {weight.data_type for weight in model.graph.initializer}
    narrow = {name for name, kind in (("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)) if kind in stored}
    return narrow | ({"int8"} if is_quantized(model) else set())
