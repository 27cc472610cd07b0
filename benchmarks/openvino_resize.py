"""What OpenVINO's INT8 kernels make of a resized map that is quantised: a dozen nodes, as ASPP's image pooling has them.

    python benchmarks/openvino_resize.py

Needs openvino and a processor with VNNI. Prints the difference from ONNX Runtime, relative to the largest output, with
OpenVINO's low-precision transformations and without. 2026.4.1 rounds the resized map to whole numbers, as if its scale were 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIDE, CHANNELS, SCALE = 9, 8, 0.05


def pooled_beside_convolved() -> ModelProto:
    """x → [resized mean of x, 1×1 convolution of x], joined, quantised, and convolved."""
    random, nodes, weights = np.random.default_rng(0), list[NodeProto](), dict[str, Any]()

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def pair(given: str, scale: float) -> str:
        weights.update({f"{given}.scale": np.float32(scale), f"{given}.zero": np.int8(0)})
        grid = [f"{given}.scale", f"{given}.zero"]
        return node("DequantizeLinear", [node("QuantizeLinear", [given, *grid], f"{given}.q"), *grid], f"{given}.dq")

    def convolved(given: str, inputs: int, outputs: int, name: str) -> str:
        weights[f"{name}.w"] = random.integers(-127, 128, (outputs, inputs, 1, 1)).astype(np.int8)
        weights[f"{name}.scale"] = np.full(outputs, 0.002, np.float32)
        weights[f"{name}.zero"] = np.zeros(outputs, np.int8)
        kernel = node("DequantizeLinear", [f"{name}.w", f"{name}.scale", f"{name}.zero"], f"{name}.dq", axis=0)
        return node("Conv", [given, kernel], name)

    x = pair("x", 0.03)
    branch = pair(node("Relu", [convolved(x, CHANNELS, CHANNELS, "branch")], "branch.relu"), SCALE)
    weights["size"] = np.array([1, CHANNELS, SIDE, SIDE], np.int64)
    mean = node("ReduceMean", [x], "mean", axes=[2, 3], keepdims=1)
    pooled = pair(node("Resize", [mean, "", "", "size"], "pooled", mode="linear"), SCALE)
    joined = pair(node("Concat", [pooled, branch], "joined", axis=1), SCALE)
    output = convolved(joined, 2 * CHANNELS, 4, "output")
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, 4, SIDE, SIDE])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def main() -> None:
    import onnxruntime
    import openvino  # type: ignore[import-not-found, unused-ignore]  # installed by who runs this

    model = pooled_beside_convolved().SerializeToString()
    x = np.random.default_rng(1).uniform(-3, 3, (1, CHANNELS, SIDE, SIDE)).astype(np.float32)
    wanted = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    core = openvino.Core()
    print(f"OpenVINO {openvino.__version__}, ONNX Runtime {onnxruntime.__version__}")
    for title, options in {"its INT8 kernels": {}, "without them": {"LP_TRANSFORMS_MODE": "NO"}}.items():
        compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **options})
        found = np.array(compiled([x])[compiled.output(0)])
        print(f"{title}: {np.abs(found - wanted).max() / np.abs(wanted).max():.1e}")


if __name__ == "__main__":
    main()
