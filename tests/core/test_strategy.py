"""Which strategies there are, the sizes of their pictures, and the windows that cover them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import check_size
from dlv3deploy.core.strategy import PAPER_SCALES, PLAIN, Strategy, scaled_side, window_starts


@pytest.mark.parametrize(
    "scales", [(), (0.0,), (-1.0,), (math.nan,), (1.0, math.nan), (math.inf,), (0.09,), (4.1,), (1.0, 1.0), (1, 0.5, 1.0)]
)
def test_scales_that_make_no_sense_are_refused(scales: Any) -> None:
    with pytest.raises(UserError, match="scale"):
        Strategy(scales)


def test_a_strategy_says_what_it_is() -> None:
    assert str(PLAIN) == "scale 1"
    assert str(Strategy((0.5, 1.0, 1.75), flip=True)) == "scales 0.5, 1, 1.75, mirrored too"


def test_the_papers_sizes_of_513_pixels() -> None:
    assert [scaled_side(513, scale, 16) for scale in PAPER_SCALES] == [257, 385, 513, 641, 769, 897]
    assert [scaled_side(513, scale, 8) for scale in PAPER_SCALES] == [257, 385, 513, 641, 769, 897]


SCALES = st.floats(0.1, 4.0)


@given(st.integers(1, 200), st.integers(0, 1), SCALES, st.sampled_from([4, 8, 16, 32]))
def test_a_scaled_side_is_the_nearest_that_suits_the_network_as_the_side_did(
    steps: int, one_more: int, scale: float, output_stride: int
) -> None:
    side = steps * output_stride + one_more
    found = scaled_side(side, scale, output_stride)
    check_size(found, found, output_stride)
    assert found % output_stride == one_more
    assert abs(found - side * scale) <= output_stride / 2 or found == output_stride + one_more


@given(st.integers(1, 4000), SCALES)
def test_a_side_of_a_network_that_is_not_known_is_scaled_to_the_pixel(side: int, scale: float) -> None:
    assert abs(scaled_side(side, scale, 1) - side * scale) <= 0.5 or scaled_side(side, scale, 1) == 1


@given(st.integers(1, 4000), st.sampled_from([1, 4, 8, 16, 32]))
def test_scale_one_is_the_side_itself(side: int, output_stride: int) -> None:
    assume(side >= output_stride)
    assert scaled_side(side, 1.0, output_stride) == side


@given(st.integers(1, 600), st.integers(1, 600))
def test_windows_lie_inside_cover_every_pixel_and_overlap(side: int, window: int) -> None:
    starts = window_starts(side, window)
    if side <= window:
        (start,) = starts
        before, after = -start, window - side + start
        assert 0 <= before <= after <= before + 1, "in the middle"
        return
    assert starts[0] == 0
    assert starts[-1] == side - window
    steps = [second - first for first, second in zip(starts, starts[1:], strict=False)]
    assert all(0 < step <= window - window // 8 for step in steps)
    assert max(steps) - min(steps) <= 1, "evenly spread"


@given(st.integers(1, 600), st.integers(1, 600))
def test_no_more_windows_than_the_overlap_needs(side: int, window: int) -> None:
    shared = min(window - 1, max(1, window // 8))
    reach = window + (len(window_starts(side, window)) - 2) * (window - shared)
    assert len(window_starts(side, window)) == 1 or reach < side, "one window fewer would not reach"
