from __future__ import annotations

import numpy as np
import pytest
from calibration_graphs import noise, run
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.calibration.fidelity import NEGLIGIBLE, PERFECT_DB, Fidelity, Judge, ScoreError, decibels
from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.graph import fix_input

pytest.importorskip("onnxruntime")


def compared(*pairs: tuple[np.ndarray, np.ndarray]) -> Fidelity:
    error = ScoreError()
    for wanted, found in pairs:
        error.collect(wanted, found)
    return error.compute()


def scores(seed: int = 0, images: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((images, 4, 5, 6)).astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), size=st.floats(1e-3, 10))
def test_the_ratio_is_that_of_loops_over_centred_scores(seed: int, size: float) -> None:
    wanted = scores(seed)
    found = (wanted + size * scores(seed + 1)).astype(np.float32)
    signal = error = same = 0.0
    divergences = [0.0, 0.0]
    for n, y, x in np.ndindex(2, 5, 6):
        one, two = wanted[n, :, y, x].astype(float), found[n, :, y, x].astype(float)
        signal += sum((value - one.mean()) ** 2 for value in one)
        error += sum((a - one.mean() - b + two.mean()) ** 2 for a, b in zip(one, two, strict=True))
        same += one.argmax() == two.argmax()
        p, q = (np.exp(side) / np.exp(side).sum() for side in (one, two))
        divergences[n] += (p * np.log(p / q)).sum() / 30
    result = compared((wanted, found))
    assert result.snr_db == pytest.approx(10 * np.log10(signal / error), abs=1e-4)
    assert result.agreement == pytest.approx(same / 60)
    assert result.divergence == pytest.approx((divergences[0] * divergences[1]) ** 0.5, rel=1e-4, abs=2 * NEGLIGIBLE)


def test_an_error_where_one_class_is_far_ahead_diverges_less_than_the_same_where_two_are_close() -> None:
    close, ahead = (np.array([first, 0.0], np.float32).reshape(1, 2, 1, 1) for first in (0.1, 9.0))
    error = np.array([-0.5, 0.5], np.float32).reshape(1, 2, 1, 1)
    assert compared((close, close + error)).divergence > 100 * compared((ahead, ahead + error)).divergence > 0


def test_scores_beyond_what_exp_can_hold_have_a_divergence() -> None:
    wanted = np.array([2000.0, -2000.0], np.float32).reshape(1, 2, 1, 1)
    assert compared((wanted, wanted / 2)).divergence == 0
    assert compared((wanted, -wanted)).divergence == pytest.approx(4000)
    assert compared((wanted * 1e35, -wanted * 1e35)).divergence == pytest.approx(4e38)  # beyond float32


def test_an_output_without_classes_diverges_by_the_share_of_its_error() -> None:
    wanted = np.array([[[[1.0, -1.0]]], [[[2.0, 2.0]]]], np.float32)  # powers of 1 and 4
    found = compared((wanted, wanted + np.float32(0.5)))
    assert found.divergence == pytest.approx((0.25 * 0.0625) ** 0.5, rel=1e-3)
    nothing = np.zeros((1, 1, 2, 2), np.float32)
    assert compared((nothing, nothing)).divergence == 0
    assert compared((nothing, nothing + 1)).divergence == pytest.approx(1)


def test_one_image_on_which_all_tips_over_does_not_outweigh_the_others() -> None:
    """Nine images say that the first method is better by 4, the tenth that the second is by 50."""
    wanted = np.array([1.0, 0.0], np.float32).reshape(1, 2, 1, 1)

    def with_errors(usual: float, last: float) -> Fidelity:
        errors = [usual] * 9 + [last]
        return compared(*((wanted, wanted + np.array([-e, e], np.float32).reshape(1, 2, 1, 1)) for e in errors))

    first, second = with_errors(0.05, 1.4), with_errors(0.1, 0.2)
    assert first.divergence < 0.5 * second.divergence
    assert first.snr_db < second.snr_db


def test_noise_of_a_tenth_is_twenty_decibels() -> None:
    wanted = np.array([1.0, -1.0], np.float32).reshape(1, 2, 1, 1)
    assert compared((wanted, wanted * np.float32(1.1))).snr_db == pytest.approx(20, abs=1e-5)


def test_equal_scores_are_perfect() -> None:
    assert compared((scores(), scores())) == Fidelity(PERFECT_DB, 1.0, 0.0)


def test_what_is_added_to_all_classes_decides_nothing() -> None:
    wanted = np.round(scores(), 2)
    result = compared((wanted, wanted + np.float32(8)))
    assert result.agreement == 1
    assert result.snr_db > 110


def test_images_count_by_their_size_however_they_are_grouped() -> None:
    wanted, found = scores(images=5), scores(1, images=5)
    together, apart = compared((wanted, found)), compared((wanted[:1], found[:1]), (wanted[1:], found[1:]))
    assert apart.snr_db == pytest.approx(together.snr_db)
    assert apart.agreement == together.agreement
    assert apart.divergence == pytest.approx(together.divergence)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("shape", [(1, 10, 10), (1, 1, 10, 10), (1, 10, 10, 1)])
def test_masks_are_right_or_wrong_by_position_whatever_the_class(kind: type, shape: tuple[int, ...]) -> None:
    wanted = np.arange(100).reshape(shape).astype(kind) % 5
    near, far = wanted.copy(), wanted.copy()
    near.ravel()[:10] += 1
    far.ravel()[:10] += 200 if kind is np.uint8 else 20
    for found in (near, far):
        assert compared((wanted, found)) == Fidelity(pytest.approx(10.0), 0.9, pytest.approx(0.1))
    assert compared((wanted, wanted)) == Fidelity(PERFECT_DB, 1.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_no_result(bad: float) -> None:
    found = scores()
    found[1, 2, 3, 4] = bad
    with pytest.raises(CheckFailed, match="INT8 model returned scores that are not finite"):
        compared((scores(), found))
    with pytest.raises(CheckFailed, match="float model returned scores that are not finite"):
        compared((found, scores()))


@pytest.mark.parametrize(
    ("signal", "error", "wanted"),
    [
        (1, 1, 0),
        (100, 1, 20),
        (1, 10, -10),
        (0, 0, PERFECT_DB),
        (0, 1, -PERFECT_DB),
        (1e300, 1e-300, PERFECT_DB),
        (1, 0, PERFECT_DB),
    ],
)
def test_decibels_stay_finite(signal: float, error: float, wanted: float) -> None:
    assert decibels(signal, error) == pytest.approx(wanted)


def test_nothing_compared_is_a_programs_mistake() -> None:
    with pytest.raises(ValueError, match="nothing was compared"):
        compared()


def test_the_judge_says_of_a_model_what_its_outputs_say() -> None:
    one, two = (fix_input(tiny_deeplab(seed), (1, 3, HEIGHT, WIDTH)) for seed in (0, 1))
    two.graph.output[0].CopyFrom(one.graph.output[0])
    images = noise(3, (HEIGHT, WIDTH))()
    judge = Judge(one, images)
    assert judge(one).agreement == 1
    pairs = [(run(one, image)[0], run(two, image)[0]) for image in images]
    found, wanted = judge(two), compared(*pairs)
    assert found.snr_db == pytest.approx(wanted.snr_db, abs=1e-3)
    assert found.agreement == pytest.approx(wanted.agreement, abs=0.01)
    assert judge.on_fewer(1)(two).snr_db == pytest.approx(compared(pairs[0]).snr_db, abs=1e-3)
    assert len(judge.batches) == 3
