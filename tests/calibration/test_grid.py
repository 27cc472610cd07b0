"""The grid against ONNX Runtime's QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from dlv3deploy.calibration.grid import SMALLEST_STEP, Range, on_grid, step_of, steps_of

onnxruntime = pytest.importorskip("onnxruntime")
FLOATS = st.floats(-1e4, 1e4, width=32)


@pytest.fixture(scope="module")
def session():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] if name == "x" else []) for name in ("x", "step")]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])
    zero = helper.make_tensor("zero", TensorProto.INT8, [], [0])
    graph = helper.make_graph(nodes, "pair", inputs, [result], [zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@settings(deadline=None, max_examples=200)
@given(values=arrays(np.float32, 16, elements=FLOATS), step=st.floats(2**-10, 64, width=32))
def test_values_on_the_grid_are_what_the_pair_returns(session, values, step: float) -> None:
    """Also those that saturate: below the smallest value of the range lies one more integer, −128."""
    (wanted,) = session.run(None, {"x": values, "step": np.array(step, np.float32)})
    np.testing.assert_array_equal(on_grid(values, step), wanted)


def test_halves_are_rounded_to_the_even_integer(session) -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, -128.5], np.float32)
    np.testing.assert_array_equal(on_grid(values, 1.0), [0, 2, 2, 0, -2, 126, 127, -128])
    np.testing.assert_array_equal(on_grid(values, 1.0), session.run(None, {"x": values, "step": np.array(1, np.float32)})[0])


def test_the_values_that_were_given_stay_as_they_are() -> None:
    values = np.array([0.3, 0.7], np.float32)
    on_grid(values, 1.0)
    np.testing.assert_array_equal(values, np.array([0.3, 0.7], np.float32))


@pytest.mark.parametrize("largest", [0.0, 1e-40, 1e-38, SMALLEST_STEP * 127, 1.0, 3e38])
@pytest.mark.parametrize("levels", [1, 7, 127])
def test_every_step_is_a_normal_float32_and_one_by_one_is_all_together(largest: float, levels: int) -> None:
    step = np.float32(step_of(largest, levels))
    assert np.finfo(np.float32).tiny <= step < np.inf
    np.testing.assert_array_equal(steps_of(np.array([largest, largest]), levels), [step, step])


@settings(deadline=None)
@given(low=FLOATS, high=FLOATS, threshold=st.floats(0, 1e4))
def test_a_threshold_never_widens_a_range_and_holds_all_below_it(low: float, high: float, threshold: float) -> None:
    whole = Range(min(low, high), max(low, high))
    cut = whole.within(threshold)
    assert max(abs(cut.low), abs(cut.high)) <= threshold
    for value in (whole.low, whole.high):
        assert abs(value) > threshold or cut.low <= value <= cut.high


@settings(deadline=None)
@given(ends=st.lists(FLOATS, min_size=4, max_size=4))
def test_the_union_of_ranges_holds_both(ends: list[float]) -> None:
    one, two = Range(*sorted(ends[:2])), Range(*sorted(ends[2:]))
    assert one.union(two) == Range(min(ends), max(ends))
