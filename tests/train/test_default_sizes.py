"""The input and the crop of `train` where the options do not say them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlv3deploy.commands.train_input import crop_for, natural_input
from dlv3deploy.core.classes import VOC


@pytest.mark.parametrize(
    ("image", "output_stride", "expected"),
    [
        ((360, 480), 16, (368, 480)),  # 360 is halfway between 352 and 368
        ((359, 361), 16, (352, 368)),
        ((72, 104), 16, (80, 112)),
        ((48, 80), 32, (64, 96)),
        ((20, 28), 8, (24, 32)),
        ((513, 511), 16, (512, 512)),
        ((5, 7), 16, (16, 16)),
    ],
)
def test_the_default_size_is_the_nearest_multiple_and_the_larger_of_two(
    tmp_path: Path, image: tuple[int, int], output_stride: int, expected: tuple[int, int]
) -> None:
    for folder, pixels in (("images", np.zeros((*image, 3), np.uint8)), ("labels", np.zeros(image, np.uint8))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "only.png")
    assert natural_input(tmp_path, output_stride, VOC) == (expected, "stretch")


def test_pictures_of_several_sizes_keep_their_proportions_in_a_square(tmp_path: Path) -> None:
    for name, size in (("a", (90, 60)), ("b", (60, 90)), ("c", (80, 60))):
        for folder, pixels in (("images", np.zeros((*size, 3), np.uint8)), ("labels", np.zeros(size, np.uint8))):
            (tmp_path / "val" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "val" / folder / f"{name}.png")
    assert natural_input(tmp_path, 16, VOC) == ((97, 97), "letterbox")


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_default_crop_is_the_input_but_no_larger_than_the_papers(output_stride: int) -> None:
    assert crop_for((352, 480), output_stride) == (352, 480)
    assert crop_for((1024, 512), output_stride) == (513, 512)
