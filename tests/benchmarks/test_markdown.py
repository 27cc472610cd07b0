"""How figures are written in tables."""

from __future__ import annotations

import pytest
from markdown import points, with_error


@pytest.mark.parametrize(("share", "text"), [(0.0123, "1.23"), (-0.0016, "−0.16"), (-0.00004, "0.00"), (0.0, "0.00")])
def test_points_are_hundredths_with_a_sign_only_where_there_is_something(share: float, text: str) -> None:
    assert points(share) == text


def test_a_standard_error_stands_behind_the_figure() -> None:
    assert with_error(-0.001, 0.0112) == "−0.10 ± 1.12"
    assert with_error(0.001, None) == "0.10 ± –"
