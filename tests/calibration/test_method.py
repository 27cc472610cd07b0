from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlv3deploy.calibration.method import STEPS, Method, parse_method
from dlv3deploy.calibration.thresholds import THRESHOLDS
from dlv3deploy.calibration.weights import PER_CHANNEL, WeightGrid
from dlv3deploy.core.errors import UserError

NEEDS = {"clips": {"equalise"}, "rounding": {"bias"}, "sequential": {"bias", "rounding"}}
METHODS = st.builds(
    lambda observer, steps: Method(observer, **{step.replace("-", "_"): True for step in steps}),
    st.sampled_from(list(THRESHOLDS)),
    st.sets(st.sampled_from(list(STEPS))).filter(lambda steps: all(NEEDS[step] <= steps for step in steps & NEEDS.keys())),
).filter(lambda method: not (method.valid_taps and method.observer == "min-max"))


@given(METHODS)
def test_a_method_is_read_from_what_it_is_called(method: Method) -> None:
    assert parse_method(str(method), PER_CHANNEL) == method


def test_the_order_of_steps_and_spaces_do_not_matter() -> None:
    assert parse_method(" mse + bias+equalise ", PER_CHANNEL) == Method("mse", equalise=True, bias=True)


def test_the_weights_grid_goes_with_the_method() -> None:
    grid = WeightGrid(4, per_tensor=True)
    method = parse_method("entropy+bias+rounding", grid)
    assert method.grid == grid
    assert str(method) == "entropy+bias+rounding, 4-bit weights, one step per weight tensor"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("magic", "magic"),
        ("mse+magic", "magic"),
        ("MSE", "MSE"),
        ("mse+valid_taps", "valid_taps"),
        ("magic+mse", "magic"),
        ("auto+bias", "auto"),
        ("", "nothing"),
        ("mse+", "nothing"),
        ("+bias", "nothing"),
    ],
)
def test_what_is_unknown_is_named_with_all_that_exists(text: str, named: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_method(text, PER_CHANNEL)
    assert f"{named}: is unknown" in str(refused.value)
    assert all(name in str(refused.value) for name in (*THRESHOLDS, *STEPS, "auto"))


def test_a_slip_is_told_what_was_meant() -> None:
    with pytest.raises(UserError, match="'minmax': minmax: is unknown; did you mean min-max"):
        parse_method("minmax", PER_CHANNEL)


@pytest.mark.parametrize("text", ["equalise", "mse+entropy", "bias+mse", "mse+mse"])
def test_a_method_is_one_observer_and_then_steps(text: str) -> None:
    with pytest.raises(UserError, match="one observer and then steps"):
        parse_method(text, PER_CHANNEL)


def test_a_step_is_written_once() -> None:
    with pytest.raises(UserError, match="bias is there twice"):
        parse_method("mse+bias+rounding+bias", PER_CHANNEL)


def test_clips_without_equalise_says_what_to_write() -> None:
    with pytest.raises(UserError, match=r"equalise\+clips"):
        parse_method("mse+clips", PER_CHANNEL)


@pytest.mark.parametrize("text", ["mse+sequential", "mse+bias+sequential", "mse+rounding+sequential"])
def test_sequential_without_what_it_finds_says_what_to_write(text: str) -> None:
    with pytest.raises(UserError, match=r"bias\+rounding\+sequential"):
        parse_method(text, PER_CHANNEL)


def test_rounding_leaves_a_mean_that_only_biases_make_good() -> None:
    with pytest.raises(UserError, match=r"write bias\+rounding"):
        parse_method("mse+rounding", PER_CHANNEL)


def test_a_step_without_effect_is_refused() -> None:
    with pytest.raises(UserError, match=r"min-max takes the largest.*percentile, entropy, mse"):
        parse_method("min-max+valid-taps", PER_CHANNEL)
