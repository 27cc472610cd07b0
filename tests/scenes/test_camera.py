"""The camera against the textbook formula, and clipping at its near plane."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlv3deploy.scenes.camera import GUARD_PX, NEAR_M, Camera

CAMERA = Camera(height=100, width=201, focal=150.0, horizon=40.0, x=2.0, y=1.5, z=10.0, yaw=0.0)


def test_a_point_ahead_projects_by_similar_triangles() -> None:
    (column, row), *_ = CAMERA.outline(((3.0, 0.5, 15.0), (4, 0, 15), (4, 1, 15)))
    assert column == pytest.approx(100 + 150 * (3 - 2) / 5)
    assert row == pytest.approx(40 + 150 * (1.5 - 0.5) / 5)


@given(yaw=st.floats(-0.5, 0.5), ahead=st.floats(1, 200), right=st.floats(-50, 50))
def test_turning_keeps_distances(yaw: float, ahead: float, right: float) -> None:
    turned = Camera(100, 201, 150.0, 40.0, 2.0, 1.5, 10.0, yaw)
    x, y, z = turned.to_camera(((2 + right, 0.7, 10 + ahead),))[0]
    assert np.hypot(x, z) == pytest.approx(np.hypot(right, ahead))
    assert y == 0.7
    assert np.arctan2(x, z) == pytest.approx(np.arctan2(right, ahead) - yaw)


def test_what_is_behind_has_no_outline() -> None:
    assert len(CAMERA.outline(((0, 0, 5), (1, 0, 5), (1, 1, 5)))) == 0


def test_what_reaches_behind_is_cut_at_the_near_plane() -> None:
    outline = CAMERA.outline(((4, 0, 0), (4, 0, 30), (4, 3, 30), (4, 3, 0)))
    assert len(outline) == 4
    assert outline[:, 0].max() == pytest.approx(min(100 + 150 * 2 / NEAR_M, GUARD_PX))
