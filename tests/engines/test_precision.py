"""FP16 and BF16 as types in the graph: what is narrowed, what stays in single precision, and what that costs."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_graphs import Graph, quantized_deeplab, run
from onnx import ModelProto, TensorProto, numpy_helper
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.graph import fix_input, simplified
from dlv3deploy.engines.dialect import TENSORRT_RTX, require_types
from dlv3deploy.engines.precision import KEPT_IN_FLOAT32, kept_in_half, to_bfloat16, to_float16, types_in
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

pytest.importorskip("onnxconverter_common")
pytest.importorskip("onnxruntime")
NARROW = {"fp16": (to_float16, TensorProto.FLOAT16), "bf16": (to_bfloat16, TensorProto.BFLOAT16)}


@pytest.fixture
def model() -> ModelProto:
    return simplified(fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH)))


def written_by_casts(model: ModelProto, kind: int) -> set[str]:
    return {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)
    }


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_are_narrow_and_ports_are_not(model: ModelProto, precision: str) -> None:
    narrow, kind = NARROW[precision]
    made = narrow(model)
    weights = {weight.name: weight for weight in made.graph.initializer}
    convolutions = [node for node in made.graph.node if node.op_type == "Conv"]
    assert convolutions and all(weights[name].data_type == kind for node in convolutions for name in node.input[1:])
    assert {value.type.tensor_type.elem_type for value in (*made.graph.input, *made.graph.output)} == {TensorProto.FLOAT}
    assert types_in(made) == {precision} and types_in(model) == set()
    other = TensorProto.BFLOAT16 if precision == "fp16" else TensorProto.FLOAT16
    assert not written_by_casts(made, other)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_means_of_whole_maps_stay_in_single_precision(model: ModelProto, precision: str) -> None:
    made = NARROW[precision][0](model)
    kept = [node for node in made.graph.node if node.op_type in KEPT_IN_FLOAT32]
    assert kept and all(node.input[0] in written_by_casts(made, TensorProto.FLOAT) for node in kept)


@pytest.mark.parametrize(("size", "is_kept"), [((8, 8), True), ((1, 1), False)])
def test_interpolation_stays_in_single_precision_where_it_mixes_values(size: tuple[int, int], is_kept: bool) -> None:
    graph = Graph(size=size)
    maps = graph.relu(graph.conv("image", "first", (4, 3, 1, 1)))
    larger = graph.node("Resize", [maps, "", "", graph.constant([1, 4, 16, 16], np.int64)], "larger", mode="linear")
    made = to_float16(simplified(fix_input(graph.model(larger, 17), (1, 3, *size))))
    (resize,) = [node for node in made.graph.node if node.op_type in ("Resize", "Expand", "Tile")]
    assert (resize.input[0] in written_by_casts(made, TensorProto.FLOAT)) == is_kept


def test_bfloat16_has_the_values_of_float32_rounded_once(model: ModelProto) -> None:
    exact = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    made = to_bfloat16(model)
    for weight in made.graph.initializer:
        if weight.data_type == TensorProto.BFLOAT16 and weight.name in exact:
            rounded = numpy_helper.to_array(weight).astype(np.float32)
            np.testing.assert_allclose(rounded, exact[weight.name], rtol=2.0**-8, atol=0)


def test_what_fp16_cannot_hold_is_refused_there_and_fits_in_bf16(model: ModelProto) -> None:
    weight = next(weight for weight in model.graph.initializer if weight.name == "stem.weight")
    values = numpy_helper.to_array(weight).copy()
    values.flat[0], values.flat[1] = 1e6, 1e-10
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(CheckFailed, match="stem.weight exceeds 65504.*or use BF16"):
        to_float16(model)
    (made,) = [weight for weight in to_bfloat16(model).graph.initializer if weight.name == "stem.weight"]
    assert numpy_helper.to_array(made).astype(np.float32).flat[:2] == pytest.approx([1e6, 1e-10], rel=2.0**-8)


def test_weights_that_fp16_can_hold_are_held(model: ModelProto) -> None:
    """A converter that clips at 10000, and at 1e-7, would make another network."""
    weight = next(weight for weight in model.graph.initializer if weight.name == "stem.weight")
    values = numpy_helper.to_array(weight).copy()
    values.flat[:3] = 20000, -60000, 2e-7
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    (made,) = [weight for weight in to_float16(model).graph.initializer if weight.name == "stem.weight"]
    np.testing.assert_array_equal(numpy_helper.to_array(made), values.astype(np.float16))


def test_half_precision_moves_scores_little(model: ModelProto) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)
    (exact,), (half,) = run(model, image), run(to_float16(model), image)
    assert 0 < np.abs(half - exact).max() < 0.01 * np.abs(exact).max()


@pytest.mark.slow
def test_tensorrt_rtx_computes_in_bf16(model: ModelProto) -> None:
    pytest.importorskip("tensorrt_rtx")
    plan = TensorRTBackend(TENSORRT_RTX, TensorRTOptions(("8.9",))).plan(to_bfloat16(model).SerializeToString(), "tiny")
    assert {tensor.type for kernel in plan.kernels if kernel.is_convolution for tensor in kernel.outputs} == {"BFloat16"}


def test_bf16_needs_a_strongly_typed_network() -> None:
    from types import SimpleNamespace

    old = SimpleNamespace(__version__="8.6.1", NetworkDefinitionCreationFlag=SimpleNamespace())
    with pytest.raises(UserError, match=r"--bf16 with TensorRT 8\.6\.1: needs 10\.0 or newer"):
        require_types(old, TensorRTOptions(), {"bf16"})
    new = SimpleNamespace(__version__="10.3.0", NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1))
    require_types(new, TensorRTOptions(), {"bf16"})
    with pytest.raises(UserError, match="--int8 with --dla: a DLA takes INT8 from a calibration cache"):
        require_types(new, TensorRTOptions(dla_core=0), {"int8"})
    with pytest.raises(UserError, match="and no DLA"):
        require_types(new, TensorRTOptions(dla_core=0), {"bf16"})


def test_what_stayed_in_floating_point_beside_int8_computes_in_half() -> None:
    plain = fix_input(quantized_deeplab(), (1, 3, HEIGHT, WIDTH))
    made = kept_in_half(plain)
    kinds = {weight.name: weight.data_type for weight in made.graph.initializer}
    convs = {node.name: node for node in made.graph.node if node.op_type == "Conv"}
    halves = {name for name, node in convs.items() if kinds.get(node.input[1]) == TensorProto.FLOAT16}
    assert halves == {"pooled"} and written_by_casts(made, TensorProto.FLOAT16) == {convs["pooled"].input[0]}
    assert types_in(made) == {"fp16", "int8"} and types_in(plain) == {"int8"}
    read = {name for node in made.graph.node for name in node.input}
    assert set(kinds) <= read  # nothing is left of the weights in single precision
    image = np.random.default_rng(0).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)
    (wanted,), (found,) = run(plain, image, "scores"), run(made, image, "scores")
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()  # a step of the grid that joins the branches


def test_a_kept_convolution_with_weights_beyond_half_precision_stays_in_single() -> None:
    plain = fix_input(quantized_deeplab(), (1, 3, HEIGHT, WIDTH))
    (bias,) = (weight for weight in plain.graph.initializer if weight.name == "pooled.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(6, 1e5, np.float32), bias.name))
    assert types_in(kept_in_half(plain)) == {"int8"}
