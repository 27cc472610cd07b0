"""Smoothing over time: by the formula where nothing moves, not at all where something does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dlv3deploy.core.classes import Classes, palette_for
from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs, check_batch
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import InputSpec, ModelSpec, OutputSpec
from dlv3deploy.core.steadiness import MOVING, Steadiness, SteadyScores
from dlv3deploy.core.strategy import Strategy

STD = (50.0, 60.0, 70.0)  # grey levels; 60 in the mean
RANDOM = np.random.default_rng(0)
SCORES = [RANDOM.standard_normal((3, 4, 6)).astype(np.float32) for _ in range(5)]


def batch_of(grey: float = 0.0) -> Batch:
    return np.full((1, 3, 32, 48), grey / 60, np.float32)


def test_scores_of_a_still_picture_are_smoothed_exponentially() -> None:
    steady, expected = SteadyScores(Steadiness(0.7), STD), SCORES[0]
    for scores in SCORES:
        expected = 0.3 * scores + 0.7 * expected if scores is not SCORES[0] else scores
        assert np.allclose(steady(scores, batch_of()), expected, atol=1e-6)


@pytest.mark.parametrize(("change", "share"), [(MOVING / 4, 0.75), (MOVING / 2, 0.5), (MOVING, 0.0), (3 * MOVING, 0.0)])
def test_the_past_counts_less_the_more_the_picture_changes(change: float, share: float) -> None:
    steady = SteadyScores(Steadiness(0.8), STD)
    steady(SCORES[0], batch_of())
    found = steady(SCORES[1], batch_of(-change))
    past = 0.8 * share
    assert np.allclose(found, (1 - past) * SCORES[1] + past * SCORES[0], atol=1e-5)


def test_only_the_positions_that_change_forget() -> None:
    steady, moved = SteadyScores(Steadiness(0.5), STD), batch_of()
    moved[:, :, 8:16, 8:16] += 1  # what position (1, 1) covers
    steady(SCORES[0], batch_of())
    found = steady(SCORES[1], moved)
    smoothed = (SCORES[0] + SCORES[1]) / 2
    smoothed[:, 1, 1] = SCORES[1][:, 1, 1]
    assert np.allclose(found, smoothed, atol=1e-6)


def test_another_size_begins_anew() -> None:
    steady = SteadyScores(Steadiness(0.9), STD)
    steady(SCORES[0], batch_of())
    other = SCORES[2][:, :2]
    assert np.array_equal(steady(other, batch_of()), other)


def test_the_scores_given_are_left_as_they_are() -> None:
    steady, given = SteadyScores(Steadiness(0.9), STD), SCORES[1].copy()
    steady(SCORES[0], batch_of())
    steady(given, batch_of())
    assert np.array_equal(given, SCORES[1])


@pytest.mark.parametrize("past", [-0.1, 1.0, 2.0, float("nan")])
def test_a_share_is_from_0_to_below_1(past: float) -> None:
    with pytest.raises(UserError, match=r"from 0 to below 1"):
        Steadiness(past)


class Flickering(ClosingEngine):
    """Class 0 leads by 3 in even frames, class 1 by 1 in odd ones, whatever they show."""

    name = "flickering"
    input_shape: tuple[int | None, int, int | None, int | None] = (1, 3, 32, 48)
    spec = ModelSpec(Classes(("a", "b"), palette_for(2)), InputSpec(32, 48), OutputSpec("scores"))
    calls = 0

    def infer(self, batch: Batch) -> Outputs:
        check_batch(self, batch)
        self.calls += 1
        scores = np.zeros((1, 2, 4, 6), np.float32)
        scores[:, 0 if self.calls % 2 else 1] = 3 if self.calls % 2 else 1
        return scores


def masks_by(segmenter: Segmenter) -> list[int]:
    frame = np.full((32, 48, 3), 90, np.uint8)
    return [int(segmenter(frame)[0, 0]) for _ in range(4)]


def test_a_steady_segmenter_does_not_flicker() -> None:
    assert masks_by(Segmenter(Flickering())) == [0, 1, 0, 1]
    assert masks_by(Segmenter(Flickering(), steadiness=Steadiness(0.5))) == [0, 0, 0, 0]
    frame = np.full((32, 48, 3), 90, np.uint8)
    assert [int(mask[0, 0]) for mask in Segmenter(Flickering(), steadiness=Steadiness(0.5)).masks([frame] * 4)] == [0] * 4


def test_it_takes_scores_and_one_view() -> None:
    class Masks(Flickering):
        spec: Any = replace(Flickering.spec, output=OutputSpec("mask"))

    with pytest.raises(UserError, match="returns class ids"):
        Segmenter(Masks(), steadiness=Steadiness(0.5))
    with pytest.raises(UserError, match="is of one view"):
        Segmenter(Flickering(), strategy=Strategy((1.0,), flip=True), steadiness=Steadiness(0.5))
