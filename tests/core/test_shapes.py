"""Outlines and run lengths become the pixels that COCO's own tools would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dlv3deploy.core.datasets.shapes import Shape, Shapes, fill_polygon, fill_runs, unpack_runs
from dlv3deploy.core.errors import UserError

HEIGHT, WIDTH = 12, 15
sides = st.floats(-3, 18, allow_nan=False, width=32)


def is_inside(x: float, y: float, corners: list[tuple[float, float]]) -> bool:
    """Whether a ray from the point to the right crosses the outline an odd number of times."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            crossings += 1
    return crossings % 2 == 1


@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=9))
def test_a_polygon_holds_the_pixels_whose_centres_lie_in_it(corners: list[tuple[float, float]]) -> None:
    filled = fill_polygon(np.array(corners, np.float32), HEIGHT, WIDTH)
    expected = [[is_inside(x + 0.5, y + 0.5, corners) for x in range(WIDTH)] for y in range(HEIGHT)]
    assert filled.tolist() == expected


def test_a_rectangle_covers_its_area_and_not_its_rim() -> None:
    filled = fill_polygon(np.array([(2, 1), (6, 1), (6, 4), (2, 4)], np.float32), 8, 10)
    assert filled.sum() == 12
    assert filled[1:4, 2:6].all()


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, beginning with those outside."""
    counts, inside = [0], False
    for value in mask.T.ravel().tolist():
        if value != inside:
            counts.append(0)
            inside = value
        counts[-1] += 1
    return counts


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_run_lengths_give_back_the_mask(mask: np.ndarray) -> None:
    assert (fill_runs(runs_of(mask), *mask.shape) == mask).all()


def test_compressed_run_lengths_are_those_that_pycocotools_wrote() -> None:
    """A block of 3×2 ones, one row and two columns from the corner of 6×7 pixels: written by pycocotools 2.0.11."""
    mask = np.zeros((6, 7), bool)
    mask[1:4, 2:4] = True
    assert unpack_runs("=330a0") == runs_of(mask) == [13, 3, 3, 3, 20]
    with pytest.raises(ValueError, match="cut short"):
        unpack_runs("=330a")


@pytest.mark.parametrize("counts", [[3], [40, 3], [-1, 43], []])
def test_run_lengths_of_another_size_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="the picture has 42 pixels"):
        fill_runs(counts, 6, 7)


def rectangle(identity: int, left: int, top: int, right: int, bottom: int) -> Shape:
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], "<f4")
    return Shape(identity, polygons=(corners.tobytes(),))


def test_where_two_classes_overlap_the_pixel_is_ignored() -> None:
    shapes = (rectangle(3, 0, 0, 4, 2), rectangle(5, 2, 0, 6, 1), rectangle(3, 1, 0, 3, 2))
    mask = Shapes("a.jpg", 3, 8, shapes, 255).read(Path("instances.json"))
    assert mask.tolist() == [[3, 3, 255, 255, 5, 5, 0, 0], [3, 3, 3, 3, 0, 0, 0, 0], [0] * 8]


def test_runs_that_do_not_fit_name_file_and_image() -> None:
    shape = Shape(1, runs=np.array([1, 2], "<u4").tobytes())
    with pytest.raises(UserError, match=r"instances\.json, image a\.jpg: run lengths add up to 3"):
        Shapes("a.jpg", 3, 8, (shape,), 255).read(Path("instances.json"))
