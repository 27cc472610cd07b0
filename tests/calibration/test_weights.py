"""Integers and biases of single convolutions, against loops over real inputs with their padding."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_graphs import Map, conv_of, convolved
from hypothesis import given, settings
from hypothesis import strategies as st

from dlv3deploy.calibration import patches
from dlv3deploy.calibration.grid import on_grid
from dlv3deploy.calibration.network import Conv
from dlv3deploy.calibration.patches import PatchMean, PatchMoments
from dlv3deploy.calibration.weights import PER_CHANNEL, WeightGrid, corrected_bias, rounded_weight

CASES = {
    "dense": (conv_of((7, 9)), (6, 4, 3, 3)),
    "pointwise": (conv_of((6, 5), kernel=1), (6, 4, 1, 1)),
    "depthwise": (conv_of((7, 9), groups=4), (4, 1, 3, 3)),
    "grouped": (conv_of((6, 8), groups=2), (6, 2, 3, 3)),
    "strided": (conv_of((9, 8), stride=2), (6, 4, 3, 3)),
    "mostly padding": (conv_of((7, 8), rate=5), (6, 4, 3, 3)),
}
GRIDS = [WeightGrid(bits, per_tensor) for bits in (8, 4, 2) for per_tensor in (False, True)]


def given_case(name: str, seed: int = 0) -> tuple[Conv, Map, Map, Map]:
    """A convolution, weights whose output channels differ in size, a bias, and inputs as behind ReLU."""
    conv, shape = CASES[name]
    random = np.random.default_rng(seed)
    weight = random.standard_normal(shape) * np.logspace(-1, 1, shape[0]).reshape(-1, 1, 1, 1)
    channels = conv.groups * shape[1]
    inputs = random.standard_normal((4, channels, conv.rows.size, conv.columns.size)) + np.linspace(-1, 2, channels).reshape(
        -1, 1, 1
    )
    bias = random.standard_normal(shape[0])
    return conv, weight.astype(np.float32), bias.astype(np.float32), np.maximum(inputs, 0).astype(np.float32)


def moments(conv: Conv, weight: Map, inputs: Map) -> Map:
    observer = PatchMoments(conv, weight)
    observer.collect(inputs)
    return observer.compute().covariance


def mean_patch(conv: Conv, inputs: Map) -> np.ndarray:
    observer = PatchMean(conv)
    observer.collect(inputs)
    return observer.compute()


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_weights_are_integers_of_so_many_bits_times_their_steps(name: str, grid: WeightGrid, learned: bool) -> None:
    conv, weight, _, inputs = given_case(name)
    found = rounded_weight(weight, conv, grid, moments(conv, weight, inputs) if learned else None)
    assert found.steps.shape == (() if grid.per_tensor else (len(weight),))
    assert found.values.shape == weight.shape
    assert found.values.dtype == found.steps.dtype == np.float32
    integers = found.values / (found.steps if grid.per_tensor else found.steps.reshape(-1, 1, 1, 1))
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)
    assert np.abs(integers).max() <= {8: 127, 4: 7, 2: 1}[grid.bits] + 1e-4


@pytest.mark.parametrize("name", CASES)
def test_without_a_covariance_each_weight_is_at_its_nearest_integer(name: str) -> None:
    conv, weight, _, _ = given_case(name)
    found = rounded_weight(weight, conv, PER_CHANNEL)
    for o, kernel in enumerate(weight):
        step = np.abs(kernel).max() / 127
        assert found.steps[o] == pytest.approx(step)
        for value, rounded in zip(kernel.ravel(), found.values[o].ravel(), strict=True):
            assert abs(rounded - value) <= step / 2 * (1 + 1e-4)


def test_one_step_for_all_covers_the_largest_weight() -> None:
    conv, weight, _, _ = given_case("dense")
    assert rounded_weight(weight, conv, WeightGrid(8, per_tensor=True)).steps == pytest.approx(np.abs(weight).max() / 127)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_learned_weights_err_less_in_the_outputs(name: str, grid: WeightGrid) -> None:
    """By loops over all inputs, the mean taken out, which is the bias's affair."""
    conv, weight, bias, inputs = given_case(name)
    wanted = np.stack([convolved(image, weight, bias, conv) for image in inputs])
    errors = []
    for covariance in (None, moments(conv, weight, inputs)):
        rounded = rounded_weight(weight, conv, grid, covariance).values
        errors.append(
            (np.stack([convolved(image, rounded, bias, conv) for image in inputs]) - wanted).var(axis=(0, 2, 3)).sum()
        )
    assert errors[1] <= errors[0] * 1.001


def test_long_patches_are_rounded_tap_by_tap_on_the_same_steps(monkeypatch) -> None:
    monkeypatch.setattr(patches, "LONGEST", 35)
    conv, weight, _, inputs = given_case("dense")
    for grid in GRIDS:
        found = rounded_weight(weight, conv, grid, moments(conv, weight, inputs))
        integers = found.values / found.steps.reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)


def test_dead_channels_have_a_usable_step() -> None:
    conv, weight, _, inputs = given_case("dense")
    weight[2] = 0
    for grid in GRIDS:
        found = rounded_weight(weight, conv, grid, moments(conv, weight, inputs))
        assert (found.steps > 0).all()
        assert not found.values[2].any()


# --- bias correction -------------------------------------------------------------------------------------------------


def corrected(name: str, seed: int = 0, bits: int = 4, input_step: float = 0.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean outputs of the float convolution, and of the INT8 one without and with the corrected bias."""
    conv, weight, bias, inputs = given_case(name, seed)
    held = on_grid(inputs, input_step)
    rounded = rounded_weight(weight, conv, WeightGrid(bits)).values
    better = corrected_bias(bias, weight, rounded, conv, mean_patch(conv, inputs), mean_patch(conv, held))
    runs = ((inputs, weight, bias), (held, rounded, bias), (held, rounded, better))
    wanted, before, after = (np.stack([convolved(image, w, b, conv) for image in given]) for given, w, b in runs)
    return wanted.mean(axis=(0, 2, 3)), before.mean(axis=(0, 2, 3)), after.mean(axis=(0, 2, 3))


@settings(deadline=None, max_examples=25)
@given(name=st.sampled_from(list(CASES)), seed=st.integers(0, 1000), bits=st.sampled_from([2, 4, 8]), step=st.floats(0.01, 1))
def test_the_mean_output_is_the_float_convolutions(name: str, seed: int, bits: int, step: float) -> None:
    wanted, _, after = corrected(name, seed, bits, step)
    np.testing.assert_allclose(after, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))


def test_without_correction_it_is_not() -> None:
    wanted, before, _ = corrected("mostly padding")
    assert np.abs(before - wanted).max() > 0.1


def test_means_of_whole_maps_forget_the_padding() -> None:
    """Nagel et al. 2019, section 4.2: E[x] per channel. In front of a large rate most taps read none of it."""
    conv, weight, bias, inputs = given_case("mostly padding")
    rounded = rounded_weight(weight, conv, WeightGrid(4)).values
    plain = bias + ((weight - rounded).sum(axis=(2, 3)) * inputs.mean(axis=(0, 2, 3))).sum(axis=1)
    ours = corrected_bias(bias, weight, rounded, conv, *[mean_patch(conv, inputs)] * 2)
    wanted = np.stack([convolved(image, weight, bias, conv) for image in inputs]).mean(axis=(0, 2, 3))
    found = [np.stack([convolved(image, rounded, b, conv) for image in inputs]).mean(axis=(0, 2, 3)) for b in (plain, ours)]
    errors = [np.abs(means - wanted).max() for means in found]
    assert errors[1] < 1e-4
    assert errors[0] > 0.05


def test_weights_and_inputs_that_lie_on_their_grids_keep_the_bias() -> None:
    conv, weight, bias, inputs = given_case("grouped")
    mean = mean_patch(conv, inputs)
    np.testing.assert_allclose(corrected_bias(bias, weight, weight, conv, mean, mean), bias, rtol=1e-6)
