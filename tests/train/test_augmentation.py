"""Augmentation: the label goes wherever its pixels go. Images here hold their own coordinates, so places can be read off."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dlv3deploy.core.datasets import open_dataset
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.preprocess import preprocess
from dlv3deploy.core.spec import ColourOrder, InputSpec
from dlv3deploy.scenes import write_dataset
from dlv3deploy.train.augment import Augmentation
from dlv3deploy.train.samples import AugmentedSamples

IGNORE, OUTSIDE = 255, (251, 252, 253)
PER_PIXEL = 4  # grey levels from one pixel to the next, so that a quarter of a pixel can be told
sides = st.integers(8, 60)
crops = st.tuples(st.integers(1, 70), st.integers(1, 70))
scales = st.tuples(st.floats(0.5, 2), st.floats(0.5, 2)).map(lambda pair: (min(pair), max(pair)))
seeds = st.integers(0, 2**32)


def coordinate_pair(height: int, width: int) -> tuple[Frame, Mask, Mask]:
    """A frame whose blue is 4·row and green 4·column, and two labels: the row and the column."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.dstack([PER_PIXEL * rows, PER_PIXEL * columns, np.zeros_like(rows)]), rows, columns


def augmented(augmentation: Augmentation, height: int, width: int, seed: int) -> tuple[Frame, Mask, Mask]:
    """The augmented frame, and both labels augmented with the same randomness."""
    frame, rows, columns = coordinate_pair(height, width)
    given_frame, row_label = augmentation(frame, rows, IGNORE, OUTSIDE, np.random.default_rng(seed))
    same_frame, column_label = augmentation(frame, columns, IGNORE, OUTSIDE, np.random.default_rng(seed))
    np.testing.assert_array_equal(given_frame, same_frame)
    return given_frame, row_label, column_label


def is_outside(frame: Frame) -> NDArray[np.bool_]:
    outside: NDArray[np.bool_] = (frame == np.array(OUTSIDE)).all(axis=2)
    return outside


@settings(deadline=None, max_examples=150)
@given(sides, sides, crops, scales, st.booleans(), seeds)
def test_every_pixel_keeps_the_label_of_its_place(
    height: int, width: int, crop: tuple[int, int], scale: tuple[float, float], flip: bool, seed: int
) -> None:
    frame, rows, columns = augmented(Augmentation(crop, scale, flip), height, width, seed)
    inside = ~is_outside(frame)
    for channel, label in ((0, rows), (1, columns)):
        apart = np.abs(frame[inside][:, channel].astype(float) - PER_PIXEL * label[inside].astype(float))
        assert apart.max(initial=0) <= PER_PIXEL / 2 + 1  # the nearest pixel is half a pixel away at most


@settings(deadline=None, max_examples=150)
@given(sides, sides, crops, scales, st.booleans(), seeds)
def test_exactly_what_lies_outside_the_image_is_filled_and_ignored(
    height: int, width: int, crop: tuple[int, int], scale: tuple[float, float], flip: bool, seed: int
) -> None:
    frame, rows, columns = augmented(Augmentation(crop, scale, flip), height, width, seed)
    assert frame.shape == (*crop, 3) and rows.shape == crop and frame.dtype == rows.dtype == np.uint8
    np.testing.assert_array_equal(rows == IGNORE, is_outside(frame))
    np.testing.assert_array_equal(columns == IGNORE, is_outside(frame))


@settings(deadline=None, max_examples=100)
@given(sides, sides, scales, st.booleans(), seeds)
def test_a_crop_larger_than_the_image_shows_all_of_it_within_the_scale(
    height: int, width: int, scale: tuple[float, float], flip: bool, seed: int
) -> None:
    _, rows, _ = augmented(Augmentation((150, 150), scale, flip), height, width, seed)
    shown = np.argwhere(rows != IGNORE)
    found = shown.max(0) - shown.min(0) + 1
    assert len(shown) == found.prod()  # one rectangle
    for side, original in zip(found, (height, width), strict=True):
        assert scale[0] * original - 1 <= side <= scale[1] * original + 1


@settings(deadline=None, max_examples=50)
@given(st.integers(30, 60), st.integers(30, 60), st.integers(1, 15), st.integers(1, 15), st.booleans(), seeds)
def test_a_crop_smaller_than_the_image_lies_inside_it(
    height: int, width: int, crop_height: int, crop_width: int, flip: bool, seed: int
) -> None:
    frame, _, _ = augmented(Augmentation((crop_height, crop_width), (0.5, 2.0), flip), height, width, seed)
    assert not is_outside(frame).any()


@given(seeds)
@settings(deadline=None, max_examples=25)
def test_the_same_randomness_gives_the_same_crop(seed: int) -> None:
    augmentation = Augmentation((20, 30))
    first, second = (augmented(augmentation, 40, 50, seed) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_randomness_gives_other_crops() -> None:
    crops = {augmented(Augmentation((20, 30)), 40, 50, seed)[1].tobytes() for seed in range(20)}
    assert len(crops) == 20


def mirrored_share(flip: bool) -> float:
    columns = [augmented(Augmentation((10, 20), (1, 1), flip), 30, 40, seed)[2][0] for seed in range(400)]
    assert all(set(np.diff(row.astype(int))) in ({1}, {-1}) for row in columns)
    return float(np.mean([row[0] > row[-1] for row in columns]))


def test_half_of_the_images_are_mirrored_unless_flip_is_off() -> None:
    assert 0.4 < mirrored_share(flip=True) < 0.6
    assert mirrored_share(flip=False) == 0


def test_scales_are_spread_over_the_range() -> None:
    heights = []
    for seed in range(300):
        _, rows, _ = augmented(Augmentation((130, 130), (0.5, 2.0)), 60, 60, seed)
        heights.append(int((rows != IGNORE).any(axis=1).sum()) / 60)
    assert min(heights) < 0.55 and max(heights) > 1.95
    quarters = np.histogram(heights, bins=4, range=(0.5, 2.0))[0]
    assert all(45 < n < 105 for n in quarters), quarters


def test_crops_reach_every_border() -> None:
    found = [augmented(Augmentation((10, 10), (1, 1), flip=False), 13, 13, seed)[1] for seed in range(60)]
    assert {int(rows[0, 0]) for rows in found} == {0, 1, 2, 3}
    assert all(a <= b for rows in found for a, b in pairwise(rows[:, 0]))


def test_the_images_given_are_left_as_they_were() -> None:
    frame, rows, _ = coordinate_pair(30, 40)
    kept = frame.copy(), rows.copy()
    Augmentation((20, 20))(frame, rows, IGNORE, OUTSIDE, np.random.default_rng(1))
    np.testing.assert_array_equal(frame, kept[0])
    np.testing.assert_array_equal(rows, kept[1])


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_what_lies_outside_a_picture_is_the_same_in_training_as_at_inference(tmp_path: Path, order: ColourOrder) -> None:
    """A letterbox with borders above and below, and a crop larger than the picture."""
    write_dataset(tmp_path, 1, 1, seed=0, size=(40, 64))
    spec = InputSpec(64, 64, mean=(10.2, 120.4, 250.6), colour_order=order, resize="letterbox")
    dataset = open_dataset(tmp_path, "train")
    cropped, label = AugmentedSamples(dataset, Augmentation((64, 64), (1, 1), flip=False), spec, seed=0)[0, 0]
    shown, _ = preprocess(dataset.samples[0].read()[0], spec)
    outside = cropped[:, label == dataset.classes.ignore_index]
    assert outside.shape == (3, 24 * 64)
    np.testing.assert_array_equal(np.unique(outside, axis=1), np.unique(shown[0, :, :12].reshape(3, -1), axis=1))
