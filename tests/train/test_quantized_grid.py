"""The learned grid: forward what ONNX's pair computes, backward LSQ's formulas written out in NumPy."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_runs import runtime_scores

from dlv3deploy.train.quantized.convolution import QuantizedWeights, largest_integer
from dlv3deploy.train.quantized.fake_quantize import Grid, fake_quantize

STEP = 0.037


def values(*shape: int, spread: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * spread).astype(np.float32)


def pair(x: np.ndarray, steps: np.ndarray, axis: int | None = None) -> onnx.ModelProto:
    where = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **where),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **where),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    constants = [numpy_helper.from_array(steps, "s"), numpy_helper.from_array(np.zeros(steps.shape, np.int8), "z")]
    graph = helper.make_graph(nodes, "pair", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_one_step_gives_bit_for_bit_what_onnx_runtimes_pair_gives() -> None:
    step = np.float32(STEP)
    x = np.concatenate([values(2000), (np.arange(-140, 140) + np.float32(0.5)) * step]).astype(np.float32)
    found = fake_quantize(torch.from_numpy(x), torch.tensor(step)).numpy()
    np.testing.assert_array_equal(found, runtime_scores(pair(x, np.array(step)), x))
    assert found.min() == np.float32(-128) * step and found.max() == np.float32(127) * step


def test_steps_per_channel_give_bit_for_bit_what_onnx_runtimes_pair_gives() -> None:
    x, steps = values(4, 3, 3, 3), np.array([0.02, 0.5, 0.001, 3], np.float32)
    found = fake_quantize(torch.from_numpy(x), torch.from_numpy(steps).reshape(4, 1, 1, 1)).numpy()
    np.testing.assert_array_equal(found, runtime_scores(pair(x, steps, axis=0), x))


def lsq(x: np.ndarray, step: float, gradient: np.ndarray, low: int, high: int) -> tuple[np.ndarray, float]:
    """Esser et al. 2020, equations 1 to 3, and section 2.2's scale, value by value in float64."""
    of_x, of_step = np.zeros(x.shape), 0.0
    for place, value in np.ndenumerate(x.astype(np.float64)):
        v = value / step
        if v < low:
            slope = float(low)
        elif v > high:
            slope = float(high)
        else:
            slope, of_x[place] = np.rint(v) - v, gradient[place]
        of_step += gradient[place] * slope
    return of_x, of_step / math.sqrt(x.size * high)


@pytest.mark.parametrize("ends", [(-128, 127), (-127, 127), (-7, 7)])
def test_gradients_are_lsqs(ends: tuple[int, int]) -> None:
    x, gradient = values(6, 7), values(6, 7, spread=1)
    given, step = torch.from_numpy(x).requires_grad_(), torch.tensor(STEP, requires_grad=True)
    fake_quantize(given, step, *ends).backward(torch.from_numpy(gradient))
    of_x, of_step = lsq(x, STEP, gradient, *ends)
    assert given.grad is not None and step.grad is not None
    np.testing.assert_allclose(given.grad, of_x, rtol=1e-6)
    assert float(step.grad) == pytest.approx(of_step, rel=1e-4)


def test_gradients_of_steps_per_channel_are_those_of_each_channel_alone() -> None:
    x, gradient, steps = values(3, 2, 2, 2), values(3, 2, 2, 2, spread=1), np.array([0.01, 0.3, 0.02], np.float32)
    given = torch.from_numpy(steps).reshape(3, 1, 1, 1).requires_grad_()
    fake_quantize(torch.from_numpy(x), given, -127, 127).backward(torch.from_numpy(gradient))
    alone = [lsq(x[c], float(steps[c]), gradient[c], -127, 127)[1] for c in range(3)]
    assert given.grad is not None
    np.testing.assert_allclose(given.grad.flatten(), alone, rtol=1e-4)


def test_beyond_the_ends_gradients_are_the_true_slopes() -> None:
    """There the grid is differentiable: its end times the step, whatever x."""
    x, delta = np.array([8.0, -9.0, 5.5], np.float64), 1e-6
    given, step = torch.from_numpy(x).requires_grad_(), torch.tensor(STEP, dtype=torch.float64, requires_grad=True)
    fake_quantize(given, step).sum().backward()
    with torch.no_grad():
        wider, narrower = (fake_quantize(given, step + d).sum() for d in (delta, -delta))
        moved = fake_quantize(given + delta, step) - fake_quantize(given, step)
    assert given.grad is not None and step.grad is not None
    slope = float(wider - narrower) / (2 * delta)
    assert float(step.grad) * math.sqrt(x.size * 127) == pytest.approx(slope, rel=1e-6)
    assert not moved.any() and not given.grad.any()


def test_inside_the_gradient_of_x_is_the_true_slope_over_whole_steps() -> None:
    x, step = torch.from_numpy(values(200, spread=0.8).astype(np.float64)), torch.tensor(STEP, dtype=torch.float64)
    for steps in (1, 3, -2):
        slope = (fake_quantize(x + steps * step, step) - fake_quantize(x, step)) / (steps * step)
        np.testing.assert_allclose(slope, 1, atol=1e-9)


def test_inside_the_gradient_of_the_step_is_the_true_slope_with_rounding_frozen() -> None:
    """Straight through means: what rounding adds, q − v, is taken for constant."""
    x, delta = values(50, spread=0.8).astype(np.float64), 1e-6
    step = torch.tensor(STEP, dtype=torch.float64, requires_grad=True)
    fake_quantize(torch.from_numpy(x), step).sum().backward()
    added = np.rint(x / STEP) - x / STEP
    frozen = [((x / s + added) * s).sum() for s in (STEP + delta, STEP - delta)]
    assert step.grad is not None
    assert float(step.grad) * math.sqrt(x.size * 127) == pytest.approx((frozen[0] - frozen[1]) / (2 * delta), rel=1e-5)


def test_a_grid_begins_with_the_calibrated_step_and_learns_its_logarithm() -> None:
    grid, x = Grid(torch.tensor(STEP)), torch.from_numpy(values(30))
    assert float(grid.step.detach()) == np.float32(STEP)
    grid(x).square().sum().backward()
    step = torch.tensor(STEP, requires_grad=True)
    fake_quantize(x, step).square().sum().backward()
    assert grid.growth.grad is not None and step.grad is not None
    assert float(grid.growth.grad) == pytest.approx(float(step.grad) * STEP, rel=1e-5)
    with torch.no_grad():
        grid.growth.fill_(-50.0)
    assert float(grid.step.detach()) > 0


def test_weights_move_in_steps_of_their_channels_and_biases_in_what_such_a_step_is_worth() -> None:
    steps = np.array([0.5, 0.001], np.float32)
    weight = np.array([[3, -2], [100, -127]], np.float32).reshape(2, 2, 1, 1) * steps.reshape(2, 1, 1, 1)
    learned = QuantizedWeights(weight, np.array([1, -1], np.float32), steps, input_step=0.1)
    np.testing.assert_allclose(learned.weight.detach(), weight, rtol=1e-6)
    np.testing.assert_array_equal(learned.bias.detach(), [1, -1])
    with torch.no_grad():
        learned.moved += torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
        learned.bias_moved += 1
    np.testing.assert_allclose(learned.weight.detach().flatten() / steps.repeat(2), [4, -3, 101, -127], rtol=1e-6)
    np.testing.assert_allclose(learned.bias.detach() - torch.tensor([1, -1]), steps * 127 * 0.1, rtol=1e-4)


@pytest.mark.parametrize(("integers", "end"), [([3, -127], 127), ([7, -2], 7), ([0, 1], 1), ([90, 64], 127), ([5, 0], 7)])
def test_weights_keep_to_the_bits_that_calibration_simulated(integers: list[int], end: int) -> None:
    weight = np.array(integers, np.float32).reshape(2, 1, 1, 1)
    assert largest_integer([(weight * np.float32(0.1), np.array([0.1, 0.1], np.float32))]) == end
