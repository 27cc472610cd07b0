"""The list of a graph's convolutions, against ONNX Runtime and against sums by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core.stand_ins import conv_graph, graph_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper
from tiny_models import tiny_deeplab

from dlv3deploy.core.graph import Convolution, convolutions

pytest.importorskip("onnxscript")


def only(model: Any, height: int = 8, width: int = 8) -> Convolution:
    (found,) = convolutions(model, height, width)
    return found


def run_on_ones(model: Any, height: int, width: int) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": np.ones((1, 3, height, width), np.float32)})[0])


@st.composite
def settings_of_conv(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], dict[str, Any]]:
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    attributes: dict[str, Any] = {"strides": [draw(st.integers(1, 3)), draw(st.integers(1, 3))]}
    padding = draw(st.sampled_from(["pads", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if padding == "pads":
        attributes["pads"] = draw(st.lists(st.integers(0, 9), min_size=4, max_size=4))
    else:
        attributes["auto_pad"] = padding
    if not padding.startswith("SAME"):  # ONNX Runtime refuses atrous rates there
        attributes["dilations"] = [draw(st.integers(1, 6)), draw(st.integers(1, 6))]
    if draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    return (5, 3, *kernel), attributes


@given(settings_of_conv(), st.integers(4, 14), st.integers(4, 14))
@settings(deadline=None, max_examples=60)
@example(((5, 3, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}), 9, 10)
@example(((5, 3, 2, 4), {"auto_pad": "SAME_LOWER", "strides": [1, 3]}), 8, 8)
@example(((5, 3, 3, 3), {"pads": [9, 0, 4, 2], "dilations": [6, 2]}), 5, 7)
def test_shapes_and_valid_taps_are_what_a_convolution_of_ones_sums_up(
    conv: tuple[tuple[int, int, int, int], dict[str, Any]], height: int, width: int
) -> None:
    weight, attributes = conv
    attributes = dict(attributes)
    rows, columns = (attributes.get("dilations", [1, 1])[i] * (weight[2 + i] - 1) + 1 for i in (0, 1))
    pads = attributes.get("pads", [0] * 4)
    if not str(attributes.get("auto_pad", "")).startswith("SAME"):
        height, width = max(height, rows - pads[0] - pads[2]), max(width, columns - pads[1] - pads[3])
    model = conv_graph(weight, (1, 3, "H", "W"), **attributes)
    sums = run_on_ones(model, height, width)  # each output counts its valid taps, once for every input channel
    found = only(model, height, width)
    assert found.output_shape == sums.shape[1:]
    assert found.input_shape == (3, height, width)
    assert found.valid_tap_share == pytest.approx(sums.mean() / np.prod(weight[1:]), rel=1e-5)
    counted = np.unique(sums[0, 0].round() / weight[1], return_counts=True)
    assert found.valid_taps == pytest.approx({int(n): count / sums[0, 0].size for n, count in zip(*counted, strict=True)})
    assert found.macs == sums.size * np.prod(weight[1:])


@pytest.mark.parametrize("given", [(1, 3, 8, 9), (1, 3, "H", "W")])
def test_same_padding_of_an_atrous_kernel_counts_its_whole_reach(given: tuple[Any, ...]) -> None:
    found = only(conv_graph(given=given, auto_pad="SAME_UPPER", dilations=[2, 3]), 8, 9)
    assert found.output_shape == (5, 8, 9)
    # The outer taps stand 2 and 3 away, and are lost at as many positions.
    assert found.valid_tap_share == pytest.approx((8 + 6 + 6) / 24 * (9 + 6 + 6) / 27)


@pytest.mark.parametrize("given", [(1, 3, 9, 10), (1, 3, "H", "W")])
def test_same_padding_with_stride_and_rate_has_ceil_outputs(given: tuple[Any, ...]) -> None:
    found = only(conv_graph(given=given, auto_pad="SAME_LOWER", dilations=[2, 2], strides=[2, 3]), 9, 10)
    assert found.output_shape == (5, 5, 4)
    # Rows at 0, 2, 4, 6, 8 with 2 of padding on either side; columns at -2, 1, 4, 7 with 2 before and 2 after.
    assert found.valid_tap_share == pytest.approx((4 + 5 + 4) / 15 * (3 + 4 + 3) / 12)


def test_every_field_of_a_grouped_convolution_without_optional_attributes() -> None:
    model = conv_graph((12, 1, 3, 1), (1, 3, 10, 20), group=3)
    assert only(model, 10, 20) == Convolution(
        name="conv",
        atrous_rate=(1, 1),
        kernel=(3, 1),
        stride=(1, 1),
        groups=3,
        input_shape=(3, 10, 20),
        output_shape=(12, 8, 20),
        valid_tap_share=1.0,
        valid_taps={3: 1.0},
        macs=12 * 3 * 8 * 20,  # one input channel a group
    )


def test_a_rate_on_a_kernel_of_one_is_not_atrous() -> None:
    assert not only(conv_graph((5, 3, 1, 1), dilations=[4, 4])).is_atrous
    assert not only(conv_graph((5, 3, 1, 3), dilations=[4, 1], pads=[0, 1, 0, 1])).is_atrous
    assert only(conv_graph((5, 3, 3, 1), dilations=[2, 1])).is_atrous


def test_a_deeplab_by_hand() -> None:
    found = {c.name: c for c in convolutions(tiny_deeplab(), 64, 96)}
    assert list(found) == ["stem", "inner", "outer", "pointwise", "atrous", "pooled", "projection", "scores"]
    assert [name for name, c in found.items() if c.is_atrous] == ["atrous"]
    atrous = found["atrous"]
    assert (atrous.input_shape, atrous.output_shape) == ((8, 16, 24), (6, 16, 24))
    assert atrous.valid_tap_share == pytest.approx((16 + 10 + 10) / 48 * (24 + 18 + 18) / 72)
    assert atrous.macs == 6 * 8 * 9 * 16 * 24
    # At rate 6 on 16×24 the middle 4×12 positions have all nine taps, 12 rows or columns lose three, the corners five.
    assert atrous.valid_taps == pytest.approx({9: 48 / 384, 6: (4 * 12 + 12 * 12) / 384, 4: 144 / 384})
    assert found["stem"].output_shape == (8, 32, 48)
    assert found["pooled"].output_shape == (6, 1, 1)


def test_one_graph_at_two_sizes() -> None:
    model = conv_graph(given=(1, 3, "H", "W"), pads=[4] * 4, dilations=[4, 4])
    small, large = only(model, 5, 5), only(model, 50, 60)
    assert small.valid_tap_share == pytest.approx(((5 + 1 + 1) / 15) ** 2)
    assert large.valid_tap_share == pytest.approx((50 + 46 + 46) / 150 * (60 + 56 + 56) / 180)


def test_quantised_weights_have_their_shape_behind_a_dequantizer() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["restored"], axis=0),
        helper.make_node("Conv", ["image", "restored"], ["result"], name="conv", pads=[1] * 4),
    ]
    weights = {"weight": np.ones((5, 3, 3, 3), np.int8), "scale": np.ones(5, np.float32), "zero": np.zeros(5, np.int8)}
    found = only(graph_of(nodes, weights=weights))
    assert found.kernel == (3, 3)
    assert found.macs == 5 * 3 * 9 * 64


def test_what_cannot_be_measured_is_left_out_and_the_rest_stays() -> None:
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["features"], name="known", pads=[1] * 4),
        helper.make_node("Riddle", ["features"], ["unknown"], domain="com.example"),
        helper.make_node("Conv", ["unknown", "second"], ["result"], name="unknown"),
    ]
    weights = {"weight": np.ones((4, 3, 3, 3), np.float32), "second": np.ones((5, 4, 1, 1), np.float32)}
    model = graph_of(nodes, weights=weights)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert [c.name for c in convolutions(model, 8, 8)] == ["known"]
