"""Every threshold against a slow search by its definition, and against the values themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlv3deploy.calibration.histogram import Histogram, Magnitudes
from dlv3deploy.calibration.thresholds import THRESHOLDS, entropy, mean_squared_error, min_max, percentile

COUNT = 60_000


def seen(values: np.ndarray) -> Magnitudes:
    histogram = Histogram("x")
    histogram.collect(np.asarray(values, np.float32).reshape(1, 1, 1, -1))
    return histogram.compute()


def drawn(kind: str, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    normal = random.standard_normal(COUNT)
    rare = random.random(COUNT) < 1e-4
    return {
        "normal": normal,
        "behind ReLU": np.maximum(normal, 0),
        "Laplace": random.laplace(size=COUNT),
        "behind ReLU6": np.clip(4 * normal, 0, 6),
        "hard-swish": 3 * normal * np.clip(3 * normal + 3, 0, 6) / 6,
        "outliers": np.where(rare, 40 * normal, normal),
        "uniform": random.random(COUNT),
        "negative": -np.abs(normal),
    }[kind]


KINDS = ["normal", "behind ReLU", "Laplace", "behind ReLU6", "hard-swish", "outliers", "uniform", "negative"]


@pytest.mark.parametrize("kind", KINDS)
def test_min_max_is_the_largest_magnitude(kind: str) -> None:
    values = drawn(kind)
    assert min_max(seen(values)) == np.abs(values).max().astype(np.float32)


@pytest.mark.parametrize("percent", [50.0, 99.0, 99.99, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_percentile_is_that_of_the_sorted_values_to_one_bin(kind: str, percent: float) -> None:
    values = np.sort(np.abs(drawn(kind)).astype(np.float32))
    wanted = values[math.ceil(percent / 100 * COUNT) - 1]
    found = seen(values)
    assert wanted <= percentile(found, percent) <= min(values[-1], wanted + 1.001 * found.width)


def squared_error(values: np.ndarray, threshold: float) -> float:
    step = threshold / 127
    return float(np.square(values - np.clip(np.rint(values / step), -127, 127) * step).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_no_threshold_has_a_clearly_smaller_squared_error_on_the_values(kind: str) -> None:
    values = drawn(kind)
    found = squared_error(values, mean_squared_error(seen(values)))
    best = min(squared_error(values, np.abs(values).max() * part) for part in np.linspace(1 / 16, 1, 400))
    assert found <= 1.03 * best


def test_one_value_far_out_does_not_take_the_grid_from_all_others() -> None:
    """Among two million: an eighth of it would be too wide by half."""
    values = np.append(np.random.default_rng(0).standard_normal(2_000_000), 60)
    found = mean_squared_error(seen(values))
    assert found < 60 / 8
    assert squared_error(values[:-1], found) < 0.7 * squared_error(values[:-1], 60 / 8)


def divergence(counts: list[float], stop: int) -> float:
    """Kullback–Leibler, for a candidate of `stop` bins, after Migacz 2017 step by step."""
    truth = counts[:stop]
    truth[-1] += sum(counts[stop:])
    quantised = [0.0] * stop
    for level in range(128):
        bins = [i for i in range(stop) if i * 128 // stop == level]
        filled = [i for i in bins if truth[i] > 0]
        for i in filled:
            quantised[i] = sum(counts[j] for j in bins) / len(filled)
    p, q = np.array(truth) / sum(truth), np.array(quantised) / max(sum(quantised), 1e-300)
    return sum(a * math.log(a / max(b, 1e-12)) for a, b in zip(p, q, strict=True) if a > 0)


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 1000), last=st.integers(130, 260), decay=st.floats(0.5, 20))
def test_the_entropy_threshold_is_the_candidate_of_least_divergence(seed: int, last: int, decay: float) -> None:
    random = np.random.default_rng(seed)
    counts = np.zeros(512)
    counts[1:last] = random.poisson(1000 * np.exp(-np.arange(1, last) * decay / last))
    counts[last - 1] += 1
    found = Magnitudes(counts, 0.0, 1.0, 0.0, last - 0.5)
    stops = range(128, last + 1)
    table = {stop: divergence(counts.tolist(), stop) for stop in stops}
    chosen = entropy(found)
    stop = last if chosen == last - 0.5 else int(chosen)
    assert table[stop] == pytest.approx(min(table.values()), rel=1e-9)


@pytest.mark.parametrize("near", [0.0, 1e-6, 1e-4])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_entropy_does_not_clip_away_what_stands_beside_a_spike_at_zero(near: float, share: float) -> None:
    """Whether the spike is of exact zeros or of values that no grid tells from zero."""
    random = np.random.default_rng(1)
    spread = np.abs(random.standard_normal(COUNT))
    threshold = entropy(seen(np.where(random.random(COUNT) < share, near * spread, spread)))
    assert np.mean(spread > threshold) < 0.01


@pytest.mark.parametrize("name", ["percentile", "entropy"])
def test_one_value_far_away_does_not_stretch_the_grid(name: str) -> None:
    values = np.append(drawn("normal"), 1000)
    assert THRESHOLDS[name](seen(values)) < 40


def test_squares_keep_what_a_few_saturated_values_would_cost() -> None:
    """One value of 1000 in 60,000 costs more, squared, than all the rest rounded to a step of 8."""
    values = np.append(drawn("normal"), 1000)
    assert mean_squared_error(seen(values)) > 900


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_is_positive_and_never_above_the_largest(name: str, kind: str) -> None:
    found = seen(drawn(kind))
    assert 0 < THRESHOLDS[name](found) <= found.largest


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("scale", [2.0**-30, 2.0**20])
def test_a_threshold_is_in_the_tensors_units(name: str, scale: float) -> None:
    values = drawn("Laplace").astype(np.float32)
    assert THRESHOLDS[name](seen(values * scale)) == pytest.approx(scale * THRESHOLDS[name](seen(values)), rel=1e-6)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_tensor_of_zeros_has_a_threshold_of_zero(name: str) -> None:
    assert THRESHOLDS[name](seen(np.zeros(10))) == 0


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("value", [3.3, -3.3, 1e-20, 1e20])
def test_a_tensor_of_one_value_has_that_value(name: str, value: float) -> None:
    assert THRESHOLDS[name](seen(np.full(100, value))) == pytest.approx(abs(value), rel=1e-3)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_positions_that_nothing_reads_leave_a_usable_threshold(name: str) -> None:
    histogram = Histogram("x", np.array([[0.0, 0.0]]))
    histogram.collect(np.array([1, 2], np.float32).reshape(1, 1, 1, 2))
    assert THRESHOLDS[name](histogram.compute()) == 2
