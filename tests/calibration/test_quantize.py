"""The written graph against arithmetic done by hand in NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_models import HEIGHT, WIDTH, GraphWriter, tiny_deeplab

from dlv3deploy.calibration.grid import Range, steps_of
from dlv3deploy.calibration.placement import Placement, place
from dlv3deploy.calibration.quantize import quantized, shared_ranges
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import fix_input

onnxruntime = pytest.importorskip("onnxruntime")


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def plain_steps(model: onnx.ModelProto, placement: Placement) -> dict[str, np.ndarray]:
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    return {name: steps_of(np.abs(weights[name]).max(axis=(1, 2, 3))) for name in placement.weights.values()}


def rounded(values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """What survives symmetric INT8: the nearest of the steps −128 to 127."""
    return np.clip(np.rint(values / scale), -128, 127) * scale


def test_one_pointwise_convolution_equals_integer_arithmetic_by_hand() -> None:
    writer = GraphWriter(3)
    model = writer.model(writer.conv("image", "scores", (5, 3, 1, 1)), 17)
    kernel, bias = (numpy_helper.to_array(w) for w in writer.weights)
    image = np.random.default_rng(0).uniform(-2, 2, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    placement = place(model.graph)
    result = quantized(model, placement, {"image": Range(-2.0, 1.5)}, plain_steps(model, placement))
    step = 2.0 / 127
    kernel_steps = np.abs(kernel[:, :, 0, 0]).max(axis=1, keepdims=True) / 127
    by_hand = np.einsum("oc,chw->ohw", rounded(kernel[:, :, 0, 0], kernel_steps), rounded(image[0], step)) + bias[:, None, None]
    np.testing.assert_allclose(run(result, image)[0], by_hand, atol=1e-5)


def test_weight_steps_are_per_output_channel_and_survive_a_dead_channel() -> None:
    np.testing.assert_allclose(steps_of(np.array([1.27, 0.0])), [0.01, 1 / 127], rtol=1e-6)


def test_tensors_that_share_a_scale_get_the_union_of_their_ranges() -> None:
    graph = fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH)).graph
    placement = place(graph)
    ranges = {name: Range(-float(i), float(i)) for i, name in enumerate(placement.tensors)}
    merged = shared_ranges(placement, ranges)
    for group in placement.shared:
        assert {merged[name] for name in group} == {
            Range(min(ranges[n].low for n in group), max(ranges[n].high for n in group))
        }


def test_each_tensor_has_one_pair_and_biases_have_none() -> None:
    model = tiny_deeplab()
    placement = place(fix_input(model, (1, 3, HEIGHT, WIDTH)).graph)
    result = quantized(model, placement, dict.fromkeys(placement.tensors, Range(-1, 1)), plain_steps(model, placement))
    sources = [node.input[0] for node in result.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(sources) == sorted({*placement.tensors, *placement.weights.values()})
    assert not [name for name in sources if name.endswith(".bias")]
    zero_points = [w for w in result.graph.initializer if w.name.endswith("/zero_point")]
    assert all(w.data_type == onnx.TensorProto.INT8 and not numpy_helper.to_array(w).any() for w in zero_points)


def test_the_float_model_is_not_changed() -> None:
    model = tiny_deeplab()
    before = model.SerializeToString(deterministic=True)
    placement = place(fix_input(model, (1, 3, HEIGHT, WIDTH)).graph)
    quantized(model, placement, dict.fromkeys(placement.tensors, Range(-1, 1)), plain_steps(model, placement))
    assert model.SerializeToString(deterministic=True) == before


def test_an_opset_without_scales_per_channel_is_refused() -> None:
    model = tiny_deeplab(opset=12)
    placement = place(fix_input(model, (1, 3, HEIGHT, WIDTH)).graph)
    with pytest.raises(UserError, match="opset 12"):
        quantized(model, placement, dict.fromkeys(placement.tensors, Range(-1, 1)), plain_steps(model, placement))
