"""Learned rounding against rounding to nearest, and against every choice of integers where those can be counted."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from calibration_graphs import Map
from hypothesis import given, settings
from hypothesis import strategies as st

from dlv3deploy.calibration import rounding as module
from dlv3deploy.calibration.rounding import learned_rounding, output_error, round_to_nearest


def problem(seed: int, blocks: int, rows: int, length: int, rank: int) -> tuple[Map, Map, Map]:
    """Weights B×R×K, a covariance of inputs that are mixtures of `rank` sources, steps B×R."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((blocks, length, rank)) * random.uniform(0.1, 3, (blocks, length, 1))
    covariance = (mixing @ mixing.transpose(0, 2, 1)).astype(np.float32)
    weight = random.standard_normal((blocks, rows, length)).astype(np.float32)
    return weight, covariance, (np.abs(weight).max(axis=2) / 7).astype(np.float32)


def error(weight: Map, rounded: Map, covariance: Map) -> np.ndarray:
    """Δw H Δwᵀ by loops in float64, B×R."""
    delta = np.asarray(rounded, np.float64) - weight
    return np.array([[d @ h.astype(np.float64) @ d for d in rows] for rows, h in zip(delta, covariance, strict=True)])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    blocks=st.integers(1, 3),
    rows=st.integers(1, 4),
    length=st.integers(1, 70),
    rank=st.integers(1, 9),
)
def test_it_is_on_the_grid_and_never_worse_than_the_nearest(seed: int, blocks: int, rows: int, length: int, rank: int) -> None:
    weight, covariance, steps = problem(seed, blocks, rows, length, rank)
    rounded = learned_rounding(weight, steps, covariance, 7)
    integers = rounded / steps[:, :, None]
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-5)
    assert np.abs(integers).max() <= 7 + 1e-5
    nearest = error(weight, round_to_nearest(weight, steps, 7), covariance)
    assert (error(weight, rounded, covariance) <= nearest * (1 + 1e-3) + 1e-6 * covariance.max()).all()


@pytest.mark.parametrize("scale", [1e-9, 1, 1e6])
def test_inputs_that_have_nothing_in_common_are_rounded_to_nearest(scale: float) -> None:
    weight, _, steps = problem(0, 2, 5, 40, 1)
    identity = np.broadcast_to(np.eye(40, dtype=np.float32) * np.float32(scale), (2, 40, 40))
    np.testing.assert_array_equal(learned_rounding(weight, steps, identity, 7), round_to_nearest(weight, steps, 7))


def best_of_all(weight: np.ndarray, step: float, covariance: Map) -> float:
    """The smallest error over all integers within three of the weights."""
    around = np.rint(weight / step)
    choices = (np.array(move) + around for move in product(range(-3, 4), repeat=weight.size))
    return min(
        float(error(weight[None, None], (c * step)[None, None], covariance)[0, 0]) for c in choices if np.abs(c).max() <= 7
    )


@pytest.mark.parametrize(("length", "count"), [(2, 60), (3, 40)])
def test_it_finds_the_best_of_all_integers_mostly_and_comes_near_it_otherwise(length: int, count: int) -> None:
    ratios, gains = [], []
    for seed in range(count):
        weight, covariance, steps = problem(seed, 1, 1, length, length)
        found = error(weight, learned_rounding(weight, steps, covariance, 7), covariance)[0, 0]
        nearest = error(weight, round_to_nearest(weight, steps, 7), covariance)[0, 0]
        best = best_of_all(weight[0, 0], float(steps[0, 0]), covariance)
        assert found >= best * (1 - 1e-4)
        ratios.append(found / best)
        gains.append(nearest / best)
    assert np.mean(np.array(ratios) < 1.001) > 0.7
    assert np.exp(np.log(ratios).mean()) < min(1.3, np.exp(np.log(gains).mean()))


def test_inputs_that_go_together_lose_far_less_than_by_the_nearest() -> None:
    """Forty inputs that are mixtures of four sources and a little noise."""
    weight, covariance, steps = problem(3, 1, 16, 40, 4)
    covariance = covariance + 0.01 * np.eye(40, dtype=np.float32)
    learned = error(weight, learned_rounding(weight, steps, covariance, 7), covariance).sum()
    assert learned < 0.3 * error(weight, round_to_nearest(weight, steps, 7), covariance).sum()


def test_damping_stands_for_errors_of_the_input_that_the_covariance_does_not_have() -> None:
    """Without them the lighter damping is the better one, with them the heavier."""
    found: dict[float, Map] = {}
    weight, covariance, steps = problem(4, 8, 16, 60, 6)
    share = np.einsum("bkk->bk", covariance).mean(axis=1)[:, None, None] * np.eye(60, dtype=np.float32)
    for damping in (module.DAMPING, module.DAMPING_FOR_FLOAT_INPUTS):
        found[damping] = learned_rounding(weight, steps, covariance, 7, damping)
    light, heavy = (error(weight, rounded, covariance).sum() for rounded in found.values())
    assert light < 0.9 * heavy
    noisy = covariance + module.DAMPING_FOR_FLOAT_INPUTS * share
    light, heavy = (error(weight, rounded, noisy).sum() for rounded in found.values())
    assert heavy < 0.9 * light


@pytest.mark.parametrize("kind", ["zero", "rank one", "one input is dead", "all the same input", "of the smallest numbers"])
def test_singular_covariances_are_no_obstacle(kind: str) -> None:
    weight, covariance, steps = problem(1, 2, 3, 50, 1)
    if kind == "zero":
        covariance = np.zeros_like(covariance)
    elif kind == "one input is dead":
        covariance[:, 7, :] = covariance[:, :, 7] = 0
    elif kind == "all the same input":
        covariance = np.ones_like(covariance)
    elif kind == "of the smallest numbers":
        covariance = covariance * np.float32(1e-30)
    rounded = learned_rounding(weight, steps, covariance, 7)
    assert np.isfinite(rounded).all()
    assert (error(weight, rounded, covariance) <= error(weight, round_to_nearest(weight, steps, 7), covariance) * 1.001).all()


def test_a_covariance_that_is_not_finite_leaves_the_nearest() -> None:
    weight, covariance, steps = problem(1, 1, 3, 5, 5)
    with np.errstate(all="ignore"):
        rounded = learned_rounding(weight, steps, np.full_like(covariance, np.nan), 7)
    np.testing.assert_array_equal(rounded, round_to_nearest(weight, steps, 7))


def test_blocks_and_rows_are_rounded_each_for_itself() -> None:
    weight, covariance, steps = problem(2, 3, 4, 70, 6)
    together = learned_rounding(weight, steps, covariance, 7)
    for b in range(3):
        for r in range(4):
            alone = learned_rounding(weight[b : b + 1, r : r + 1], steps[b : b + 1, r : r + 1], covariance[b : b + 1], 7)
            np.testing.assert_array_equal(together[b, r], alone[0, 0])


def test_how_many_columns_go_together_changes_nothing(monkeypatch) -> None:
    weight, covariance, steps = problem(5, 2, 6, 100, 8)
    found = []
    for block in (1, 7, 32, 1000):
        monkeypatch.setattr(module, "BLOCK", block)
        found.append(learned_rounding(weight, steps, covariance, 7))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    assert error(weight, found[0], covariance).sum() < 0.2 * error(weight, round_to_nearest(weight, steps, 7), covariance).sum()


def test_saturated_weights_stay_at_the_ends_of_the_grid() -> None:
    weight, covariance, steps = problem(4, 1, 3, 20, 5)
    rounded = learned_rounding(weight, steps / 3, covariance, 7)
    assert np.abs(rounded / (steps[:, :, None] / 3)).max() == pytest.approx(7)
    assert np.abs(round_to_nearest(weight, steps / 3, 7) / (steps[:, :, None] / 3)).max() == pytest.approx(7)


@pytest.mark.parametrize("seed", range(3))
def test_the_output_error_is_the_variance_of_the_outputs_difference(seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((5000, 6)) @ random.standard_normal((6, 6))
    weight, _, steps = problem(seed, 1, 4, 6, 6)
    rounded = round_to_nearest(weight, steps, 7)
    covariance = np.cov(inputs, rowvar=False, bias=True)[None].astype(np.float32)
    measured = (inputs @ (rounded - weight)[0].T).var(axis=0)
    np.testing.assert_allclose(output_error(weight, rounded, covariance)[0], measured, rtol=1e-3)
