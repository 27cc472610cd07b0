"""Where a frame's pixels go in the network's input, and what they become there."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from core.stand_ins import raw_input
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlv3deploy.core.images import Frame
from dlv3deploy.core.postprocess import mask_from_ids
from dlv3deploy.core.preprocess import geometry_of, mean_colour, preprocess
from dlv3deploy.core.spec import IMAGENET_MEAN, IMAGENET_STD, ColourOrder, InputSpec, Triple

pytest.importorskip("cv2")

SIDES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def noise(height: int, width: int) -> Frame:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def bilinear(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel bilinear interpolation, pixel by pixel, in double precision; beyond the border the border's pixels."""
    result = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * plane.shape[0] / height - 0.5, 0), plane.shape[0] - 1)
            x = min(max((j + 0.5) * plane.shape[1] / width - 0.5, 0), plane.shape[1] - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, plane.shape[0] - 1), min(left + 1, plane.shape[1] - 1)
            corners = plane[[top, top, bottom, bottom], [left, right, left, right]].astype(float)
            weights = np.outer([1 - (y - top), y - top], [1 - (x - left), x - left]).ravel()
            result[i, j] = corners @ weights
    return result


def painted_box(frame: tuple[int, int], spec: InputSpec) -> tuple[int, int, int, int]:
    """Top, left, height and width of what a white frame paints on the letterbox."""
    batch, _ = preprocess(np.full((*frame, 3), 255, np.uint8), spec)
    rows, columns = np.nonzero((batch[0] == 255).all(axis=0))
    assert set(np.unique(batch)) <= {255, 0}
    box = rows.min(), columns.min(), rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    assert len(rows) == box[2] * box[3], "a rectangle without holes"
    top, left, height, width = (int(v) for v in box)
    return top, left, height, width


def test_a_frame_of_the_inputs_size_is_normalised_and_nothing_else() -> None:
    frame = noise(7, 5)
    batch, _ = preprocess(frame, InputSpec(7, 5))
    assert batch.shape == (1, 3, 7, 5)
    assert batch.dtype == np.float32
    for channel in range(3):  # red, green, blue
        expected = (frame[:, :, 2 - channel].astype(float) - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        assert np.abs(batch[0, channel] - expected).max() < 1e-5


def test_bgr_models_get_the_channels_as_opencv_has_them() -> None:
    frame = noise(4, 6)
    batch, _ = preprocess(frame, raw_input(4, 6, colour_order="bgr"))
    assert np.array_equal(batch[0], frame.transpose(2, 0, 1))


@pytest.mark.parametrize("frame", [(10, 14), (48, 32), (5, 40)])
def test_a_stretched_frame_is_interpolated_bilinearly_to_a_grey_level(frame: tuple[int, int]) -> None:
    picture = noise(*frame)
    batch, _ = preprocess(picture, raw_input(24, 20, colour_order="bgr"))
    for channel in range(3):
        assert np.abs(batch[0, channel] - bilinear(picture[:, :, channel], 24, 20)).max() <= 1


@given(SIDES, SIDES)
@settings(deadline=None, max_examples=150)
@example((1, 90), (8, 8))
@example((3, 2), (5, 5))  # the width becomes 3⅓
@example((2, 4), (3, 3))  # the height becomes 1½
def test_a_letterbox_keeps_the_shape_of_the_view_and_centres_it(frame: tuple[int, int], size: tuple[int, int]) -> None:
    top, left, height, width = painted_box(frame, raw_input(*size, resize="letterbox"))
    scale = min(Fraction(size[0], frame[0]), Fraction(size[1], frame[1]))
    for side, wanted in ((height, frame[0] * scale), (width, frame[1] * scale)):
        assert side >= 1
        assert abs(side - wanted) <= Fraction(1, 2) or (side == 1 and wanted < 1)
    assert height == size[0] or width == size[1]
    assert 0 <= size[0] - height - 2 * top <= 1
    assert 0 <= size[1] - width - 2 * left <= 1


@given(SIDES, SIDES)
@settings(deadline=None, max_examples=100)
def test_the_geometry_leads_from_the_frames_borders_to_those_of_the_picture_in_the_letterbox(
    frame: tuple[int, int], size: tuple[int, int]
) -> None:
    spec = raw_input(*size, resize="letterbox")
    box = painted_box(frame, spec)
    geometry = geometry_of(*frame, spec)
    for axis in (0, 1):
        positions = geometry.input_positions(axis)
        pixel = box[2 + axis] / frame[axis]  # of the frame, in the input
        assert positions[0] - pixel / 2 + 0.5 == pytest.approx(box[axis])
        assert positions[-1] + pixel / 2 + 0.5 == pytest.approx(box[axis] + box[2 + axis])
        assert np.allclose(np.diff(positions), pixel)


@given(SIDES, SIDES, SIDES)
@settings(deadline=None, max_examples=100)
def test_no_pixel_of_a_mask_comes_from_the_border_of_the_letterbox(
    frame: tuple[int, int], size: tuple[int, int], shown: tuple[int, int]
) -> None:
    spec = raw_input(*size, resize="letterbox")
    top, left, height, width = painted_box(frame, spec)
    ids = np.ones(size, np.int64)
    ids[top : top + height, left : left + width] = 0
    geometry = geometry_of(*frame, spec)
    assert not mask_from_ids(ids, geometry).any()
    mask = mask_from_ids(ids, geometry.to_size(*shown))
    assert mask.shape == shown
    assert not mask.any()


def test_a_letterboxed_frame_is_interpolated_inside_its_box() -> None:
    picture = noise(30, 50)
    batch, _ = preprocess(picture, raw_input(33, 33, colour_order="bgr", resize="letterbox"))
    inner = batch[0, :, 6:26, :]  # 30·33/50 = 19.8 rows, 6½ above and below
    assert not batch[0, :, :6].any()
    assert not batch[0, :, 26:].any()
    for channel in range(3):
        assert np.abs(inner[channel] - bilinear(picture[:, :, channel], 20, 33)).max() <= 1


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("mean", [IMAGENET_MEAN, (10.2, 120.4, 250.6), (127.5, 127.5, 127.5)])
def test_the_borders_of_a_letterbox_are_normalised_to_about_zero(order: ColourOrder, mean: Triple) -> None:
    spec = InputSpec(33, 33, mean=mean, std=(1.0, 1.0, 1.0), colour_order=order, resize="letterbox")
    batch, _ = preprocess(noise(30, 50), spec)
    assert np.abs(batch[0, :, :6]).max() <= 0.5  # half of a grey level
    assert np.abs(batch[0, :, 26:]).max() <= 0.5


@pytest.mark.parametrize("mean", [(-40.0, 0.0, 300.0), (0.0, 0.0, 0.0)])
def test_a_mean_that_no_pixel_has_is_filled_with_the_nearest_colour(mean: Triple) -> None:
    assert mean_colour(raw_input(4, 4, mean=mean, colour_order="bgr")) == tuple(min(255, max(0, v)) for v in mean)


def test_the_same_view_at_another_size_reads_the_same_places() -> None:
    geometry = geometry_of(30, 50, raw_input(33, 33, resize="letterbox"))
    double = geometry.to_size(60, 100)
    for axis in (0, 1):
        pairs_of_two = double.input_positions(axis).reshape(-1, 2).mean(axis=1)
        assert np.allclose(pairs_of_two, geometry.input_positions(axis))


def test_the_frame_itself_is_left_as_it_was() -> None:
    frame = noise(9, 9)
    before = frame.copy()
    preprocess(frame, InputSpec(9, 9))
    assert np.array_equal(frame, before)
