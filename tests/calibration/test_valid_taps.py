from __future__ import annotations

import numpy as np
from calibration_graphs import conv_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlv3deploy.calibration.network import Conv
from dlv3deploy.calibration.valid_taps import reads_per_position, valid_taps_per_position


@st.composite
def convs(draw: st.DrawFn, size: tuple[int, int] | None = None) -> Conv:
    size = size or draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    kernel, rate, stride = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    conv = conv_of(size, kernel, rate, stride, draw(st.lists(st.integers(0, 6), min_size=4, max_size=4)))
    assume(conv.rows.outputs and conv.columns.outputs)
    return conv


def counted(conv: Conv) -> tuple[np.ndarray, np.ndarray]:
    """By a loop over outputs and taps: how often each input is read, and from how many taps each output reads."""
    reads = np.zeros((conv.rows.size, conv.columns.size))
    taps = np.zeros((conv.rows.outputs, conv.columns.outputs))
    for y in range(conv.rows.outputs):
        for x in range(conv.columns.outputs):
            for i in range(conv.rows.kernel):
                for j in range(conv.columns.kernel):
                    down = y * conv.rows.stride - conv.rows.before + i * conv.rows.rate
                    across = x * conv.columns.stride - conv.columns.before + j * conv.columns.rate
                    if 0 <= down < conv.rows.size and 0 <= across < conv.columns.size:
                        reads[down, across] += 1
                        taps[y, x] += 1
    return reads, taps


@settings(deadline=None, max_examples=60)
@given(conv=convs())
def test_reads_and_valid_taps_are_those_of_a_loop(conv: Conv) -> None:
    reads, taps = counted(conv)
    found = reads_per_position([conv])
    if found is None:
        assert len(np.unique(reads)) == 1
    else:
        np.testing.assert_array_equal(found, reads)
    np.testing.assert_array_equal(valid_taps_per_position(conv), taps)


@settings(deadline=None, max_examples=30)
@given(first=convs(size=(6, 5)), second=convs(size=(6, 5)))
def test_reads_of_several_convolutions_of_one_map_add_up(first: Conv, second: Conv) -> None:
    wanted = counted(first)[0] + counted(second)[0]
    found = reads_per_position([first, second])
    np.testing.assert_array_equal(wanted if found is None else found, wanted)
    assert (found is None) == (len(np.unique(wanted)) == 1)


def test_a_pointwise_convolution_counts_every_position_alike() -> None:
    assert reads_per_position([conv_of((5, 6), kernel=1)]) is None
    assert reads_per_position([]) is None


def test_a_strided_one_does_not_read_what_lies_between() -> None:
    found = reads_per_position([conv_of((4, 4), kernel=1, stride=2)])
    np.testing.assert_array_equal(found, [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])


def test_small_rates_read_the_border_less_and_large_ones_the_middle() -> None:
    near, far = (reads_per_position([conv_of((23, 30), rate=rate)]) for rate in (2, 18))
    assert near is not None
    assert far is not None
    assert near[0, 0] < near[11, 15]
    assert far[0, 0] > far[11, 15]
    assert np.unique(far).tolist() == [1, 2, 4]  # as the module tells
