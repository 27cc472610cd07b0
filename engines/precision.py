"""FP16 as types in the ONNX file, because strongly typed TensorRT takes the precision from the graph and from nowhere else."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from dlv3deploy.core.errors import CheckFailed, UserError

if TYPE_CHECKING:
    from onnx import ModelProto

# A mean over a whole map sums thousands of values, which FP16 cannot hold.
KEPT_IN_FLOAT32 = ("GlobalAveragePool", "ReduceMean")


def to_float16(model: ModelProto) -> ModelProto:
    """A copy that computes in FP16 between a float32 input and a float32 (or integer) output. Raises CheckFailed when a weight
    does not fit in FP16, UserError when the converter is not installed."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    try:
        from onnxconverter_common import float16
    except ImportError as error:
        raise UserError("the FP16 converter", "is not installed", "install dlv3deploy[fp16]") from error
    limit = float(np.finfo(np.float16).max)
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.abs(numpy_helper.to_array(weight)).max(initial=0.0) > limit:
            raise CheckFailed(f"weight {weight.name} exceeds {limit:.0f}, the largest FP16 number; keep the engine in FP32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # tiny weights that round to the smallest FP16 number, thousands of them
        converted: ModelProto = float16.convert_float_to_float16(
            model, keep_io_types=True, op_block_list=list(KEPT_IN_FLOAT32), disable_shape_infer=False
        )
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    return converted


def is_quantized(model: ModelProto) -> bool:
    """Whether a graph has its quantisation written in it."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def types_in(model: ModelProto) -> set[str]:
    """The types besides FP32 that a graph computes in: "fp16" of stored weights, "int8" where it quantises."""
    from onnx import TensorProto

    is_half = any(weight.data_type == TensorProto.FLOAT16 for weight in model.graph.initializer)
    return {name for name, is_there in (("fp16", is_half), ("int8", is_quantized(model))) if is_there}
