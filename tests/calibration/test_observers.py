from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.histogram import Histogram
from dlv3deploy.calibration.observers import ChannelRange
from dlv3deploy.core.errors import CheckFailed

VALUES = arrays(np.float32, (4, 2, 3, 1), elements=st.floats(-1e6, 1e6, width=32))


@settings(deadline=None, max_examples=50)
@given(values=VALUES, order=st.permutations(range(4)))
def test_the_range_depends_neither_on_the_order_nor_on_the_batch(values, order) -> None:
    whole, piecewise = ChannelRange("x"), ChannelRange("x")
    whole.collect(values)
    for index in order:
        piecewise.collect(values[index : index + 1])
    np.testing.assert_array_equal(piecewise.compute(), whole.compute())
    np.testing.assert_array_equal(whole.compute(), np.abs(values).max(axis=(0, 2, 3)))


@settings(deadline=None)
@given(low=st.floats(-1e4, 1e4), high=st.floats(-1e4, 1e4))
def test_symmetric_int8_reaches_both_ends_of_the_range(low: float, high: float) -> None:
    found = Range(min(low, high), max(low, high))
    assert np.float32(found.step()) > 0
    reach = 127 * found.step() * (1 + 1e-12)
    assert -reach <= found.low
    assert found.high <= reach


def test_a_tensor_that_is_always_zero_has_a_usable_scale() -> None:
    assert Range(0.0, 0.0).step() > 0


@pytest.mark.parametrize("kind", [Histogram, ChannelRange])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_their_tensor(kind, bad: float) -> None:
    observer = kind("/aspp/conv")
    with pytest.raises(CheckFailed, match="/aspp/conv"):
        observer.collect(np.array([1.0, bad], np.float32).reshape(1, 1, 1, 2))
