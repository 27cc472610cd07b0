"""The pooled branch taken out of the projection: the same function, whatever spreads it and wherever it stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.rewrites.image_pooling import fold_image_pooling
from dlv3deploy.engines.rewrites.rewrite import rewritten

ort = pytest.importorskip("onnxruntime")
SIZE = 5, 7
SPREADS = ("linear", "aligned", "nearest", "Expand", "Tile")
OUTPUTS = 4


class Head:
    """Branches of 3 channels and one that is pooled and spread, joined in the order `order` ("b" and "p"), and projected."""

    def __init__(self, order: str, spread: str = "linear", is_int8: bool = False, seed: int = 0) -> None:
        self.random, self.is_int8 = np.random.default_rng(seed), is_int8
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        parts = [self.branch(str(index)) if kind == "b" else self.pooled(spread) for index, kind in enumerate(order)]
        joined = self.node("Concat", [self.on_grid(part, 0.05) for part in parts], "joined", axis=1)
        self.conv(self.on_grid(joined, 0.05), "scores", 3 * len(order))

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def conv(self, given: str, output: str, channels: int) -> str:
        weight = self.constant(f"{output}.weight", self.random.standard_normal((OUTPUTS, channels, 1, 1)).astype(np.float32))
        bias = self.constant(f"{output}.bias", self.random.standard_normal(OUTPUTS).astype(np.float32))
        if self.is_int8:
            weight = self.on_grid(weight, np.linspace(0.01, 0.02, OUTPUTS, dtype=np.float32))
        return self.node("Conv", [given, weight, bias], output, kernel_shape=[1, 1])

    def on_grid(self, name: str, step: Any) -> str:
        if not self.is_int8:
            return name
        steps = np.asarray(step, np.float32)
        grid = [
            self.constant(f"{name}/scale", steps),
            self.constant(f"{name}/zero_point", np.zeros(steps.shape, np.int8)),
        ]
        axis = {"axis": 0} if steps.ndim else {}
        held = self.node("QuantizeLinear", [name, *grid], f"{name}/quantized", **axis)
        return self.node("DequantizeLinear", [held, *grid], f"{name}/dequantized", **axis)

    def branch(self, name: str) -> str:
        return self.node("Mul", ["image", self.constant(f"{name}.factor", np.float32(1 + float(name)))], f"branch{name}")

    def pooled(self, spread: str) -> str:
        mean = self.node("Relu", [self.node("GlobalAveragePool", ["image"], "mean")], "pooled")
        if spread == "Expand":
            return self.node("Expand", [mean, self.constant("shape", np.array([1, 3, *SIZE]))], "spread")
        if spread == "Tile":
            return self.node("Tile", [mean, self.constant("repeats", np.array([1, 1, *SIZE]))], "spread")
        how = {"mode": "nearest"} if spread == "nearest" else {"mode": "linear"}
        how |= {"coordinate_transformation_mode": "align_corners"} if spread == "aligned" else {}
        return self.node("Resize", [mean, "", "", self.constant("sizes", np.array([1, 3, *SIZE]))], "spread", **how)

    def model(self) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *SIZE])
        scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, OUTPUTS, *SIZE])
        graph = helper.make_graph(self.nodes, "head", [image], [scores], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def folded(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Change]]:
    result, changes = rewritten(model, [fold_image_pooling])
    onnx.checker.check_model(result, full_check=True)
    return result, changes


def run(model: onnx.ModelProto) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": picture()})[0]


def picture() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((1, 3, *SIZE)).astype(np.float32)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@settings(deadline=None, max_examples=60)
@given(order=st.sampled_from(["bp", "pb", "bpb", "bbbp", "pbb"]), spread=st.sampled_from(SPREADS), seed=st.integers(0, 99))
def test_the_projection_computes_what_it_did(order: str, spread: str, seed: int) -> None:
    model = Head(order, spread, seed=seed).model()
    result, changes = folded(model)
    np.testing.assert_allclose(run(result), run(model), rtol=0, atol=1e-5 * float(np.abs(run(model)).max()))
    (change,) = changes
    channels, positions = 3 * len(order), SIZE[0] * SIZE[1]
    assert change.node == "scores"
    assert change.macs_before == OUTPUTS * channels * positions
    assert change.macs_after == OUTPUTS * ((channels - 3) * positions + 3)
    assert {"Resize", "Expand", "Tile"}.isdisjoint(kinds(result))
    assert kinds(result).count("Concat") == (len(order) > 2)
    assert result.graph.output == model.graph.output


@pytest.mark.parametrize("order", ["bp", "pbb"])
def test_a_map_of_unknown_shape_has_the_channels_that_it_is_spread_from(order: str) -> None:
    """As where a batch is open, and the sizes of the map are computed in the graph."""
    model = Head(order, "Tile").model()
    (spread,) = (value for value in model.graph.value_info if value.name == "spread")
    model.graph.value_info.remove(spread)
    result, changes = folded(model)
    assert len(changes) == 1 and "Tile" not in kinds(result)
    np.testing.assert_allclose(run(result), run(model), rtol=0, atol=1e-5 * float(np.abs(run(model)).max()))


def test_a_map_of_more_channels_than_it_is_spread_from_is_left_alone() -> None:
    head = Head("bp", "Tile")
    (repeats,) = (index for index, weight in enumerate(head.weights) if weight.name == "repeats")
    head.weights[repeats].CopyFrom(numpy_helper.from_array(np.array([1, 2, *SIZE]), "repeats"))
    head.weights = [w for w in head.weights if w.name != "scores.weight"]
    head.constant("scores.weight", np.ones((OUTPUTS, 9, 1, 1), np.float32))
    model = head.model()
    del model.graph.value_info[:]
    result, changes = folded(model)
    assert not changes and kinds(result) == kinds(model)


def on_grid(values: NDArray[Any], step: Any) -> NDArray[Any]:
    return np.clip(np.rint(values / step), -128, 127) * step


@pytest.mark.parametrize("order", ["bp", "bpb"])
def test_in_int8_the_pooled_vector_goes_through_the_grid_that_its_map_went_through(order: str) -> None:
    head = Head(order, is_int8=True)
    result, changes = folded(head.model())
    assert len(changes) == 1
    image, pooled = picture()[0], on_grid(np.maximum(picture()[0].mean(axis=(1, 2), keepdims=True), 0), 0.05)
    parts = [on_grid(image * (1 + index), 0.05) if kind == "b" else pooled + 0 * image for index, kind in enumerate(order)]
    arrays = {w.name: numpy_helper.to_array(w) for w in head.weights}
    weight = on_grid(arrays["scores.weight"][:, :, 0, 0], arrays["scores.weight/scale"][:, None])
    wanted = np.einsum("oc,chw->ohw", weight, np.concatenate(parts)) + arrays["scores.bias"][:, None, None]
    np.testing.assert_allclose(run(result)[0], wanted, atol=1e-4)
    np.testing.assert_allclose(run(result), run(head.model()), atol=1e-5)
    left = [node.input[0] for node in result.graph.node if node.op_type == "QuantizeLinear"]
    assert left.count("pooled") == 1 and "spread" not in left  # both pairs on its way have the same scale
    assert {f"branch{index}" for index, kind in enumerate(order) if kind == "b"} <= set(left)


def test_a_kernel_above_1x1_is_left_alone() -> None:
    head = Head("bp")
    (conv,) = (node for node in head.nodes if node.op_type == "Conv")
    head.weights = [w for w in head.weights if w.name != "scores.weight"]
    head.constant("scores.weight", np.ones((OUTPUTS, 6, 3, 3), np.float32))
    del conv.attribute[:]
    conv.attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    model = head.model()
    result, changes = folded(model)
    assert changes == [] and kinds(result) == kinds(model)


def test_a_concat_that_something_else_reads_is_left_alone() -> None:
    model = Head("bp").model()
    model.graph.output.append(helper.make_tensor_value_info("joined", TensorProto.FLOAT, [1, 6, *SIZE]))
    assert folded(model)[1] == []


def test_a_map_that_is_resized_is_no_pooled_branch() -> None:
    head = Head("bp")
    head.nodes = [node for node in head.nodes if node.op_type not in ("GlobalAveragePool", "Relu")]
    head.nodes.insert(0, helper.make_node("MaxPool", ["image"], ["pooled"], "pooled", kernel_shape=[2, 2]))
    assert folded(head.model())[1] == []
