"""The INT8 share and the pairs of a graph that is counted by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantized_graph import activation_pairs, int8_share_of_macs

SCALE, ZERO = "scale", "zero"


def pair(tensor: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [tensor, SCALE, ZERO], [f"{tensor}.q"], name=f"{tensor}.quantize"),
        helper.make_node("DequantizeLinear", [f"{tensor}.q", SCALE, ZERO], [f"{tensor}.dq"], name=f"{tensor}.dequantize"),
    ]


def graph(*nodes: onnx.NodeProto, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    values = {SCALE: np.float32(0.1), ZERO: np.int8(0), **weights}
    made = helper.make_graph(
        list(nodes),
        "counted",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 10])],
        [helper.make_tensor_value_info("last", TensorProto.FLOAT, ["n", "c", "h", "w"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def conv(given: str, weight: str, name: str, **settings: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [given, weight], [name], name=name, pads=[1, 1, 1, 1], **settings)


def two_convolutions(first: tuple[str, str], second: tuple[str, str]) -> onnx.ModelProto:
    """3→4 at 8×10 with stride 2, then 4→6 at 4×5, both 3×3; each reads its data and weights as named."""
    return graph(
        *pair("image"),
        *pair("a"),
        helper.make_node("DequantizeLinear", ["b.q", SCALE, ZERO], ["b.dq"], name="b.dequantize"),
        conv(*first, "half", strides=[2, 2]),
        *pair("half"),
        conv(*second, "last"),
        weights={"a": floats(4, 3, 3, 3), "b": floats(6, 4, 3, 3), "b.q": np.ones((6, 4, 3, 3), np.int8)},
    )


FIRST, SECOND = 4 * 3 * 9 * 4 * 5, 6 * 4 * 9 * 4 * 5  # multiply-accumulates


@pytest.mark.parametrize(
    ("first", "second", "int8"),
    [
        (("image", "a"), ("half", "b"), 0),
        (("image.dq", "a.dq"), ("half", "b"), FIRST),
        (("image.dq", "a"), ("half.dq", "b.dq"), SECOND),  # the first reads INT8 data and float weights
        (("image", "a.dq"), ("half.dq", "b.dq"), SECOND),  # the first reads INT8 weights alone
        (("image.dq", "a.dq"), ("half.dq", "b.dq"), FIRST + SECOND),
    ],
)
def test_a_convolution_is_int8_when_data_and_weights_come_from_dequantize_linear(
    first: tuple[str, str], second: tuple[str, str], int8: int
) -> None:
    model = two_convolutions(first, second)
    assert int8_share_of_macs(model, 8, 10) == pytest.approx(int8 / (FIRST + SECOND))


def test_pairs_are_those_on_activations_and_those_on_weights_are_not_counted() -> None:
    assert activation_pairs(two_convolutions(("image.dq", "a.dq"), ("half.dq", "b.dq"))) == 2  # of image and half


def test_a_graph_without_quantisation_has_neither() -> None:
    model = graph(conv("image", "a", "last"), weights={"a": floats(4, 3, 3, 3)})
    assert (int8_share_of_macs(model, 8, 10), activation_pairs(model)) == (0.0, 0)
