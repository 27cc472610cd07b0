"""Growing, weighted histograms against np.histogram and loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlv3deploy.calibration.histogram import BINS, SMALLEST_EXPONENT, Histogram, Magnitudes

# Magnitudes from 2^−70 to 2^100, so that the histogram grows by many powers of two at once.
SPREAD = st.builds(
    lambda sign, power, part: sign * part * 2.0**power, st.sampled_from([-1, 0, 1]), st.integers(-70, 100), st.floats(1, 2)
)
IMAGES = arrays(np.float64, (5, 2, 3, 2), elements=SPREAD).map(lambda values: values.astype(np.float32))
NEAR = arrays(np.float32, (5, 2, 3, 2), elements=st.floats(-300, 300, width=32))


def seen(values: np.ndarray, weights: np.ndarray | None = None) -> Magnitudes:
    histogram = Histogram("x", weights)
    histogram.collect(values)
    return histogram.compute()


def assert_same(one: Magnitudes, two: Magnitudes) -> None:
    np.testing.assert_array_equal(one.counts, two.counts)
    assert (one.zeros, one.width, one.low, one.high) == (two.zeros, two.width, two.low, two.high)


@settings(deadline=None, max_examples=40)
@given(values=IMAGES, order=st.permutations(range(5)), cut=st.integers(1, 4))
def test_order_and_grouping_of_the_images_change_nothing(values: np.ndarray, order: list[int], cut: int) -> None:
    pieces = Histogram("x")
    for part in (order[:cut], order[cut:]):
        pieces.collect(values[part])
    single = Histogram("x")
    for index in order:
        single.collect(values[index : index + 1])
    assert_same(pieces.compute(), seen(values))
    assert_same(single.compute(), seen(values))


@settings(deadline=None, max_examples=40)
@given(values=st.one_of(NEAR, IMAGES))
def test_growing_gives_what_numpy_counts_on_the_final_edges(values: np.ndarray) -> None:
    grown = Histogram("x")
    for image in values[np.argsort(np.abs(values).max(axis=(1, 2, 3)))]:  # smallest first: every step grows
        grown.collect(image[None])
    found = grown.compute()
    assert len(found.counts) == BINS
    magnitudes = np.abs(values).astype(np.float64).ravel()
    assert magnitudes.max() < BINS * found.width
    wanted, _ = np.histogram(magnitudes, bins=BINS, range=(0, BINS * found.width))
    np.testing.assert_array_equal(found.counts, wanted)
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.zeros == np.sum(values == 0)


@settings(deadline=None, max_examples=30)
@given(values=NEAR, weights=arrays(np.float64, (3, 2), elements=st.integers(0, 9)))
def test_weights_count_every_position_so_often(values: np.ndarray, weights: np.ndarray) -> None:
    found = seen(values, weights)
    wanted, zeros = np.zeros(BINS), 0.0
    for image in values:
        for channel in image:
            for y in range(3):
                for x in range(2):
                    wanted[min(BINS - 1, int(abs(float(channel[y, x])) / found.width))] += weights[y, x]
                    zeros += weights[y, x] * (channel[y, x] == 0)
    np.testing.assert_array_equal(found.counts, wanted)
    assert found.zeros == zeros


@settings(deadline=None, max_examples=20)
@given(values=NEAR)
def test_equal_weights_are_none(values: np.ndarray) -> None:
    assert_same(seen(values, np.ones((3, 2))), seen(values))


def test_a_power_of_two_lies_in_a_bin_of_its_own() -> None:
    """Not in the bin below it, whatever the histogram grew from."""
    found = seen(np.array([1.0, 0.75], np.float32).reshape(1, 1, 1, 2))
    assert found.width * BINS == 2
    assert np.flatnonzero(found.counts).tolist() == [BINS * 3 // 8, BINS // 2]


def test_the_largest_and_smallest_floats_find_a_bin() -> None:
    values = np.array([np.finfo(np.float32).max, np.finfo(np.float32).tiny, 1e-45, 0], np.float32).reshape(1, 1, 2, 2)
    found = seen(values)
    assert found.counts.sum() == 4
    assert found.zeros == 1
    assert found.largest == np.finfo(np.float32).max


def test_magnitudes_below_the_smallest_exponent_share_the_first_bin() -> None:
    found = seen(np.full((1, 1, 2, 2), 2.0 ** (SMALLEST_EXPONENT - 20), np.float32))
    assert found.counts[0] == 4
    assert found.zeros == 0


def test_zeros_alone_have_a_range_of_zero() -> None:
    found = seen(np.zeros((1, 1, 2, 2), np.float32))
    assert (found.largest, found.zeros, found.counts.sum()) == (0, 4, 4)


def test_memory_does_not_grow_with_the_images() -> None:
    histogram = Histogram("x")
    sizes = set()
    for power in range(-20, 20):
        histogram.collect(np.full((1, 1, 4, 4), 2.0**power, np.float32))
        sizes.add(sum(value.nbytes for value in vars(histogram).values() if isinstance(value, np.ndarray)))
    assert sizes == {BINS * 8}


def test_the_values_that_were_shown_stay_as_they_are() -> None:
    values = np.array([-1.0, 2.0], np.float32).reshape(1, 1, 1, 2)
    seen(values)
    assert values.ravel().tolist() == [-1, 2]


def test_what_was_computed_stays_when_more_is_collected() -> None:
    histogram = Histogram("x")
    histogram.collect(np.ones((1, 1, 1, 1), np.float32))
    before = histogram.compute()
    histogram.collect(np.ones((1, 1, 1, 1), np.float32))
    assert before.counts.sum() == 1


def test_without_any_image_there_is_nothing_to_compute() -> None:
    with pytest.raises(ValueError, match="nothing was collected for x"):
        Histogram("x").compute()
