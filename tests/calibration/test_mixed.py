"""The search for as few convolutions in floating point as a budget allows, against trying every number of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlv3deploy.calibration.mixed import Mixture, search_mixture
from dlv3deploy.calibration.sensitivity import Sensitivity


@dataclass
class Scripted:
    """Stands for calibrations whose mixtures lose what the script says for their number of float convolutions."""

    drops: Sequence[float]
    measured: list[int] = field(default_factory=list)

    def drop_of(self, kept: tuple[str, ...]) -> float:
        assert kept == tuple(f"conv{index}" for index in range(len(kept)))  # a prefix, in order
        self.measured.append(len(kept))
        return self.drops[len(kept)]

    def search(self, budget: float) -> Mixture:
        """Convolution i has i + 1 multiply-accumulates."""
        order = [Sensitivity(f"conv{index}", 1.0, index + 1) for index in range(len(self.drops))]
        return search_mixture(tuple, order, budget, self.drops[0], self.drop_of)  # type: ignore[arg-type]  # names for models


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60).map(lambda drops: sorted(drops, reverse=True)), st.floats(0, 1))
def test_where_each_convolution_helps_it_is_the_fewest_that_do(drops: list[float], budget: float) -> None:
    script = Scripted(drops)
    found = script.search(budget)
    fewest = next((kept for kept, drop in enumerate(drops) if drop <= budget), None)
    assert found.within == (fewest is not None)
    if fewest is not None:
        assert found.keep == {f"conv{index}" for index in range(fewest)}
    assert len(script.measured) <= 2 * len(drops).bit_length()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 1))
def test_whatever_they_lose_the_answer_is_one_that_was_measured(drops: list[float], budget: float) -> None:
    """Along the order accuracy need not grow; then the shortest may be missed, but no budget is said to be met that is not."""
    script = Scripted(drops)
    found = script.search(budget)
    assert found.within == (drops[len(found.keep)] <= budget)
    assert {point.kept: point.drop for point in found.points} == {kept: drops[kept] for kept in {0, *script.measured}}
    assert [point.kept for point in found.points] == sorted({0, *script.measured})
    if not found.within:
        assert drops[len(found.keep)] == min(point.drop for point in found.points)


def test_nothing_is_measured_twice_and_the_whole_not_at_all() -> None:
    script = Scripted([0.9, 0.8, 0.7, 0.6, 0.5, 0.1, 0.05, 0.04])
    assert len(script.search(0.2).keep) == 5
    assert len(set(script.measured)) == len(script.measured) and 0 not in script.measured


def test_one_convolution_stays_in_int8_and_the_share_is_of_the_work() -> None:
    found = Scripted([0.5, 0.4, 0.3]).search(0.1)
    assert not found.within and found.keep == {"conv0", "conv1"}
    assert [point.int8_share for point in found.points] == pytest.approx([1, 5 / 6, 3 / 6])


def test_of_one_convolution_nothing_can_be_kept() -> None:
    found = Scripted([0.5]).search(0.1)
    assert (found.keep, found.within) == (frozenset(), False)
