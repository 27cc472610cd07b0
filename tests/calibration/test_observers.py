from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlv3deploy.calibration.observers import MinMax, Range
from dlv3deploy.core.errors import CheckFailed

VALUES = arrays(np.float32, (4, 2, 3), elements=st.floats(-1e6, 1e6, width=32))


@settings(deadline=None, max_examples=50)
@given(values=VALUES, order=st.permutations(range(4)))
def test_the_range_depends_neither_on_the_order_nor_on_the_batch(values, order) -> None:
    whole, piecewise = MinMax("x"), MinMax("x")
    whole.collect(values)
    for index in order:
        piecewise.collect(values[index])
    assert piecewise.compute() == whole.compute() == Range(float(min(values.flat)), float(max(values.flat)))


@settings(deadline=None)
@given(low=st.floats(-1e4, 1e4), high=st.floats(-1e4, 1e4))
def test_symmetric_int8_reaches_both_ends_of_the_range(low: float, high: float) -> None:
    found = Range(min(low, high), max(low, high))
    assert np.float32(found.scale()) > 0
    reach = 127 * found.scale() * (1 + 1e-12)
    assert -reach <= found.low
    assert found.high <= reach


def test_a_tensor_that_is_always_zero_has_a_usable_scale() -> None:
    assert Range(0.0, 0.0).scale() > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_their_tensor(bad: float) -> None:
    observer = MinMax("/aspp/conv")
    with pytest.raises(CheckFailed, match="/aspp/conv"):
        observer.collect(np.array([1.0, bad], np.float32))
