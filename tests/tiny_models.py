"""Small segmentation graphs built in code, with the parts that DeepLabv3 has, so that tests need no training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dlv3deploy.core.graph import embed_spec
from dlv3deploy.core.spec import InputSpec, ModelSpec, OutputSpec
from dlv3deploy.scenes import ROAD_SCENE

HEIGHT, WIDTH, CLASSES = 64, 96, len(ROAD_SCENE)


@dataclass
class GraphWriter:
    """Collects nodes and weights; every method returns the name of the tensor it made."""

    seed: int = 0
    size: tuple[int, int] = (HEIGHT, WIDTH)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def weight(self, name: str, values: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(
        self, given: str, name: str, shape: tuple[int, int, int, int], rate: int = 1, stride: int = 1, groups: int = 1
    ) -> str:
        fan_in = shape[1] * shape[2] * shape[3]
        kernel = self.weight(f"{name}.weight", (self.random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32))
        bias = self.weight(f"{name}.bias", (self.random.standard_normal(shape[0]) * 0.1).astype(np.float32))
        pad = rate * (shape[2] - 1) // 2
        return self.node(
            "Conv",
            [given, kernel, bias],
            name,
            dilations=[rate] * 2,
            strides=[stride] * 2,
            pads=[pad] * 4,
            kernel_shape=shape[2:],
            group=groups,
        )

    def relu(self, given: str) -> str:
        return self.node("Relu", [given], f"{given}.relu")

    def model(self, output: str, opset: int, dynamic: bool = False) -> onnx.ModelProto:
        size: list[Any] = ["height", "width"] if dynamic else list(self.size)
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *size])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.weights,
        )
        model = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def tiny_deeplab(seed: int = 0, opset: int = 17, dynamic: bool = False) -> onnx.ModelProto:
    """Stem, residual block, two atrous branches and image pooling, projection, classifier: scores at output stride 4."""
    writer = GraphWriter(seed)
    stem = writer.relu(writer.conv("image", "stem", (8, 3, 3, 3), stride=2))
    inner = writer.relu(writer.conv(stem, "inner", (8, 8, 3, 3)))
    joined = writer.relu(writer.node("Add", [writer.conv(inner, "outer", (8, 8, 3, 3)), stem], "joined"))
    features = writer.node("MaxPool", [joined], "features", kernel_shape=[2, 2], strides=[2, 2])
    pointwise = writer.relu(writer.conv(features, "pointwise", (6, 8, 1, 1)))
    atrous = writer.relu(writer.conv(features, "atrous", (6, 8, 3, 3), rate=6))
    pooled = writer.relu(writer.conv(writer.node("GlobalAveragePool", [features], "mean"), "pooled", (6, 8, 1, 1)))
    spread = writer.node("Tile", [pooled, writer.weight("repeats", np.array([1, 1, HEIGHT // 4, WIDTH // 4]))], "spread")
    branches = writer.node("Concat", [pointwise, atrous, spread], "branches", axis=1)
    projected = writer.relu(writer.conv(branches, "projection", (8, 18, 1, 1)))
    return writer.model(writer.conv(projected, "scores", (CLASSES, 8, 1, 1)), opset, dynamic)


def with_logits(model: onnx.ModelProto) -> onnx.ModelProto:
    """A tiny DeepLabv3 that upsamples its scores to the size of its input."""
    scores, shape = model.graph.output[0].name, [1, CLASSES, HEIGHT, WIDTH]
    model.graph.initializer.append(numpy_helper.from_array(np.array(shape), "logits.sizes"))
    rule = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    model.graph.node.append(helper.make_node("Resize", [scores, "", "", "logits.sizes"], ["logits"], "logits", **rule))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))
    return model


def tiny_spec() -> ModelSpec:
    return ModelSpec(ROAD_SCENE, InputSpec(HEIGHT, WIDTH), OutputSpec("scores"))


def write_tiny(path: Path, seed: int = 0, **options: Any) -> Path:
    """A self-describing tiny model on the disk."""
    model = tiny_deeplab(seed, **options)
    embed_spec(model, tiny_spec())
    path.write_bytes(model.SerializeToString())
    return path
