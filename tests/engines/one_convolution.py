"""A graph of one convolution, its weights as float, half, on grids or as integers, and what it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FORMS = ("float", "half", "pair", "integers", "one step")


def graph_of(
    size: tuple[int, int],
    kernel: tuple[int, int] = (3, 3),
    rate: tuple[int, int] = (1, 1),
    stride: int = 1,
    pads: tuple[int, int, int, int] | None = None,
    groups: int = 1,
    form: str = "float",
    seed: int = 0,
) -> onnx.ModelProto:
    """One convolution of 4 to 6 channels, its weights in one of FORMS; padded to its own size unless told otherwise."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((6, 4 // groups, *kernel)).astype(np.float32)
    high, wide = (r * (k - 1) // 2 for r, k in zip(rate, kernel, strict=True))
    settings: dict[str, Any] = {
        "dilations": rate,
        "strides": [stride, stride],
        "pads": pads or (high, wide, high, wide),
        "kernel_shape": kernel,
        "group": groups,
    }
    kind = TensorProto.FLOAT16 if form == "half" else TensorProto.FLOAT
    arrays, nodes, name = {"bias": random.standard_normal(6).astype(np.float32)}, [], "weight"
    if form in ("float", "half"):
        arrays["weight"] = weight
    else:
        steps = np.asarray(0.02, np.float32) if form == "one step" else np.linspace(0.01, 0.03, 6, dtype=np.float32)
        arrays |= {"scale": steps, "zero": np.zeros(steps.shape, np.int8)}
        axis = {} if form == "one step" else {"axis": 0}
        shaped = steps.reshape(-1, 1, 1, 1) if steps.ndim else steps
        arrays["weight"] = np.clip(np.rint(weight / shaped), -127, 127).astype(np.int8) if form == "integers" else weight
        if form != "integers":
            nodes.append(helper.make_node("QuantizeLinear", ["weight", "scale", "zero"], ["int8"], "quantize", **axis))
        nodes.append(
            helper.make_node(
                "DequantizeLinear", ["weight" if form == "integers" else "int8", "scale", "zero"], ["held"], **axis
            )
        )
        name = "held"
    if form == "half":
        arrays = {key: values.astype(np.float16) for key, values in arrays.items()}
    nodes.append(helper.make_node("Conv", ["image", name, "bias"], ["scores"], "conv", **settings))
    image = helper.make_tensor_value_info("image", kind, [1, 4, *size])
    scores = helper.make_tensor_value_info("scores", kind, None)
    weights = [numpy_helper.from_array(values, key) for key, values in arrays.items()]
    graph = helper.make_graph(nodes, "one", [image], [scores], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def run(model: onnx.ModelProto) -> NDArray[Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given_input = session.get_inputs()[0]
    kind = np.float16 if "float16" in given_input.type else np.float32
    return session.run(None, {"image": np.random.default_rng(1).standard_normal(given_input.shape).astype(kind)})[0]
