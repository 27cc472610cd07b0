"""Shares of valid taps: the closed form against taps that are counted one by one, and the paper's Figure 4."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dlv3deploy.core.dilation import ValidTaps, Window, valid_weight_shares

windows = st.builds(
    Window,
    size=st.integers(1, 20),
    kernel=st.integers(1, 5),
    rate=st.integers(1, 25),
    stride=st.integers(1, 4),
    before=st.integers(0, 30),
    after=st.integers(0, 30),
)


def taps_read(window: Window) -> np.ndarray:
    """outputs×kernel: 1 where the tap reads the map, 0 where it reads padding."""
    padded = [0] * window.before + [1] * window.size + [0] * window.after
    reach = window.rate * (window.kernel - 1) + 1
    starts = range(0, len(padded) - reach + 1, window.stride)
    read = [padded[start : start + reach : window.rate] for start in starts]
    return np.array(read).reshape(len(read), window.kernel)


@given(windows)
@settings(deadline=None, max_examples=300)
@example(Window(5, 3, rate=40, before=40, after=40))
@example(Window(5, 3, rate=40))  # the kernel does not fit at all
@example(Window(7, 3, rate=2, stride=3, before=0, after=5))
def test_one_axis_is_what_counting_finds(window: Window) -> None:
    read = taps_read(window)
    assert window.outputs == len(read)
    assert [window.valid_positions(tap) for tap in range(window.kernel)] == read.sum(axis=0).tolist()
    assert window.valid_share() == pytest.approx(read.mean() if read.size else 0)


@given(windows, windows)
@settings(deadline=None, max_examples=100)
def test_two_axes_are_what_counting_finds(rows: Window, columns: Window) -> None:
    down, across = taps_read(rows), taps_read(columns)
    assume(down.size and across.size)
    read = np.einsum("ik,jl->ijkl", down, across)  # a tap reads the map where its row and its column do
    assert ValidTaps(rows, columns).share() == pytest.approx(read.mean())


@given(windows)
@settings(deadline=None, max_examples=300)
@example(Window(5, 3, rate=40, before=40, after=40))
@example(Window(5, 3, rate=40))  # no output position at all
@example(Window(3, 2, rate=1, before=9, after=9))  # positions in the padding, where no tap is valid
@example(Window(9, 4, rate=2, before=3, after=3))  # an even kernel
@example(Window(7, 3, rate=2, stride=3, before=0, after=5))
def test_positions_by_valid_taps_are_what_counting_finds(window: Window) -> None:
    counted = Counter(taps_read(window).sum(axis=1).tolist())
    assert {taps: n for taps, n in window.positions_by_valid_taps().items() if n} == counted


@given(windows, windows)
@settings(deadline=None, max_examples=100)
def test_the_distribution_over_both_axes_is_what_counting_finds(rows: Window, columns: Window) -> None:
    down, across = taps_read(rows), taps_read(columns)
    read = np.einsum("ik,jl->ijkl", down, across).sum(axis=(2, 3))
    counted = {taps: n / read.size for taps, n in Counter(read.ravel().tolist()).items()}
    assert ValidTaps(rows, columns).shares() == pytest.approx(counted)


@given(windows, windows)
@settings(deadline=None, max_examples=100)
def test_the_distribution_agrees_with_the_share_of_valid_taps(rows: Window, columns: Window) -> None:
    taps = ValidTaps(rows, columns)
    assume(rows.outputs and columns.outputs)
    assert sum(taps.shares().values()) == pytest.approx(1)
    assert list(taps.shares()) == sorted(taps.shares(), reverse=True)
    mean = sum(count * share for count, share in taps.shares().items())
    assert mean / (rows.kernel * columns.kernel) == pytest.approx(taps.share())


@given(st.integers(1, 10_000), st.integers(1, 12_000))
def test_three_taps_follow_the_textbook_form(size: int, rate: int) -> None:
    found = Window(size, 3, rate, before=rate, after=rate).positions_by_valid_taps()
    three, two = max(0, size - 2 * rate), 2 * max(0, min(rate, size - rate))
    assert (found[3], found[2], found[1]) == (three, two, size - three - two)
    assert found.total() == size


# Figure 4 of the DeepLabv3 paper: positions of a 65×65 map by the number of valid weights of a 3×3 kernel.
# From the middle a row of taps at ±r is whole; at a distance below r from the border one tap is lost, and where
# r ≥ 33 the two losses overlap, down to the centre tap alone at r ≥ 65.
FIGURE_4 = {
    1: {9: 63**2, 6: 4 * 63, 4: 4},
    12: {9: 41**2, 6: 2 * 41 * 24, 4: 24**2},
    32: {9: 1, 6: 2 * 64, 4: 64**2},
    33: {4: 64**2, 2: 2 * 64, 1: 1},
    48: {4: 34**2, 2: 2 * 34 * 31, 1: 31**2},
    64: {4: 4, 2: 4 * 63, 1: 63**2},
    65: {1: 65**2},
    96: {1: 65**2},
}


@pytest.mark.parametrize("rate", FIGURE_4)
def test_figure_4(rate: int) -> None:
    positions = FIGURE_4[rate]
    shares = valid_weight_shares(65, 3, [rate])
    assert list(shares) == [1, 2, 3, 4, 6, 9]
    assert {taps: share for taps, (share,) in shares.items() if share} == {n: c / 65**2 for n, c in positions.items()}
    assert sum(positions.values()) == 65**2
    axis = Window(65, 3, rate, before=rate, after=rate)
    assert axis.outputs == 65
    expected = sum(weights * count for weights, count in positions.items()) / (9 * 65**2)
    assert ValidTaps(axis, axis).share() == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 24), st.sampled_from([1, 3, 5, 7]), st.lists(st.integers(1, 30), max_size=4))
@settings(deadline=None, max_examples=100)
def test_any_figure_is_what_an_array_of_ones_and_zeros_counts(size: int, kernel: int, rates: list[int]) -> None:
    shares = valid_weight_shares(size, kernel, rates)
    assert set(shares) == set(np.multiply.outer(np.arange(1, kernel + 1), np.arange(1, kernel + 1)).ravel().tolist())
    for index, rate in enumerate(rates):
        border = kernel // 2 * rate
        padded = np.pad(np.ones((size, size), int), border)
        steps = range(0, kernel * rate, rate)
        weights = sum(padded[y : y + size, x : x + size] for y in steps for x in steps)
        counted = Counter(np.asarray(weights).ravel().tolist())
        assert {n: row[index] for n, row in shares.items() if row[index]} == {n: c / size**2 for n, c in counted.items()}


def test_rates_at_least_as_large_as_the_map_leave_a_1x1_kernel() -> None:
    axis = Window(33, 3, 36, before=36, after=36)  # torchvision's largest rate on a 513×513 input at output stride 16
    assert ValidTaps(axis, axis).share() == pytest.approx(1 / 9)
