from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_models import HEIGHT, WIDTH, GraphWriter, tiny_deeplab

from dlv3deploy.calibration.grid import Range, steps_of
from dlv3deploy.calibration.placement import place
from dlv3deploy.calibration.quantize import quantized
from dlv3deploy.core.graph import fix_input
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeBackend
from dlv3deploy.engines.onnxruntime_int8 import with_constants_of_its_own, with_unsigned_activations

onnxruntime = pytest.importorskip("onnxruntime")


def run(model: onnx.ModelProto, image: np.ndarray, output: str | None = None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([output] if output else None, {"image": image})[0]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (1, 3, HEIGHT, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def symmetric(image: np.ndarray) -> onnx.ModelProto:
    """The tiny model with the ranges that this very image causes."""
    model = tiny_deeplab()
    placement = place(fix_input(model, (1, 3, HEIGHT, WIDTH)).graph)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    ranges = {"image": Range(float(image.min()), float(image.max()))}
    for name in placement.tensors:
        if name != "image":
            watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
            values = run(watched, image, name)
            ranges[name] = Range(float(values.min()), float(values.max()))
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    steps = {name: steps_of(np.abs(weights[name]).max(axis=(1, 2, 3))) for name in placement.weights.values()}
    return quantized(model, placement, ranges, steps)


def zero_points(model: onnx.ModelProto) -> dict[str, int]:
    """The zero point of every quantised activation, by the tensor's name."""
    values = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    pairs = {n.input[0]: values[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    return {name: int(value) for name, value in pairs.items() if value.ndim == 0}


def test_only_tensors_that_cannot_be_negative_change(symmetric: onnx.ModelProto) -> None:
    after = zero_points(with_unsigned_activations(symmetric))
    branches = {"pointwise.relu", "atrous.relu", "spread", "branches"}
    rectified = {"stem.relu", "inner.relu", "joined.relu", "features", "projection.relu"} | branches
    assert {name for name, value in after.items() if value == -128} == rectified
    assert after["image"] == 0


def test_a_convolution_without_activation_keeps_its_signs() -> None:
    writer = GraphWriter()
    linear = writer.conv("image", "linear", (4, 3, 1, 1))
    model = writer.model(writer.conv(linear, "last", (2, 4, 1, 1)), 17)
    placement = place(fix_input(model, (1, 3, HEIGHT, WIDTH)).graph)
    one = {name: np.ones(rows, np.float32) for name, rows in zip(placement.weights.values(), (4, 2), strict=True)}
    found = quantized(model, placement, dict.fromkeys(placement.tensors, Range(-1, 1)), one)
    assert zero_points(with_unsigned_activations(found)) == {"image": 0, linear: 0}


def test_the_range_stays_and_the_steps_are_finer(symmetric: onnx.ModelProto) -> None:
    unsigned = with_unsigned_activations(symmetric)
    before, after = ({w.name: numpy_helper.to_array(w) for w in m.graph.initializer} for m in (symmetric, unsigned))
    assert after["stem.relu/scale/unsigned"] * 255 == pytest.approx(before["stem.relu/scale"] * 127, rel=1e-6)


def test_the_scores_come_closer_to_the_floating_point_model(symmetric: onnx.ModelProto, image: np.ndarray) -> None:
    exact = run(tiny_deeplab(), image)
    errors = [np.abs(run(model, image) - exact).mean() for model in (symmetric, with_unsigned_activations(symmetric))]
    assert errors[1] < 0.8 * errors[0]


def test_more_convolutions_run_on_integers(symmetric: onnx.ModelProto, tmp_path: Path) -> None:
    backend, engine = OnnxRuntimeBackend(), tmp_path / "model.engine"
    backend.build(symmetric.SerializeToString(), engine, "model")
    kinds = list(backend.layer_precision(engine, {}).values())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "plain.onnx")
    onnxruntime.InferenceSession(symmetric.SerializeToString(), options, providers=["CPUExecutionProvider"])
    plain = [node.op_type for node in onnx.load(str(tmp_path / "plain.onnx")).graph.node]
    assert kinds.count("int8") > plain.count("QLinearConv")


def test_a_graph_without_quantisation_stays_as_it_is() -> None:
    model = tiny_deeplab()
    assert with_unsigned_activations(model).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


@pytest.fixture
def shared(symmetric: onnx.ModelProto) -> onnx.ModelProto:
    """With one constant for all tensors whose scales or zero points are alike, as libraries that simplify graphs leave it."""
    result = onnx.ModelProto()
    result.CopyFrom(symmetric)
    first: dict[tuple[bytes, tuple[int, ...], int], str] = {}
    renamed = {}
    for weight in result.graph.initializer:
        if weight.name.endswith(("/scale", "/zero_point")):
            values = numpy_helper.to_array(weight)
            renamed[weight.name] = first.setdefault((values.tobytes(), values.shape, weight.data_type), weight.name)
    for node in result.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    assert len(set(renamed.values())) < len(renamed)
    return result


def test_constants_that_tensors_share_are_added_once(shared: onnx.ModelProto) -> None:
    names = [weight.name for weight in with_unsigned_activations(shared).graph.initializer]
    assert len(names) == len(set(names))
    assert sum(name.endswith("/unsigned") for name in names) > 2


def test_constants_that_tensors_share_are_told_apart_and_the_function_stays(shared: onnx.ModelProto, image: np.ndarray) -> None:
    apart = with_constants_of_its_own(shared)
    users: dict[str, set[str]] = {}
    for node in apart.graph.node:
        if node.op_type == "QuantizeLinear":
            for name in node.input[1:3]:
                users.setdefault(name, set()).add(node.input[0])
    assert all(len(tensors) == 1 for tensors in users.values())
    np.testing.assert_array_equal(run(apart, image), run(shared, image))
    assert len({weight.name for weight in apart.graph.initializer}) == len(apart.graph.initializer)


def test_a_graph_of_shared_constants_becomes_the_same_engine(
    shared: onnx.ModelProto, symmetric: onnx.ModelProto, tmp_path: Path
) -> None:
    kinds = []
    for model in (symmetric, shared):
        OnnxRuntimeBackend().build(model.SerializeToString(), tmp_path / "model.engine", "a graph")
        kinds.append(sorted(node.op_type for node in onnx.load(str(tmp_path / "model.engine")).graph.node))
    assert kinds[0] == kinds[1]
