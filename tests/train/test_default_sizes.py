"""The input and the crop of `train` where the options do not say them."""

from __future__ import annotations

from pathlib import Path

import command_line
import numpy as np
import pytest
from PIL import Image

from dlv3deploy.commands.options import parse_size
from dlv3deploy.commands.train_input import crop_for, natural_input
from dlv3deploy.core.classes import VOC


@pytest.mark.parametrize(
    ("image", "output_stride", "expected"),
    [
        ((360, 480), 16, (353, 481)),  # CamVid's, as in the README
        ((65, 97), 16, (65, 97)),
        ((64, 96), 16, (65, 97)),
        ((57, 105), 16, (65, 113)),  # halfway between 49 and 65, and between 97 and 113
        ((56, 106), 16, (49, 113)),
        ((49, 81), 32, (65, 97)),
        ((21, 28), 8, (25, 25)),
        ((1024, 2048), 16, (1025, 2049)),
        ((5, 7), 16, (17, 17)),
    ],
)
def test_the_default_size_has_aligned_corners_nearest_to_the_pictures_and_the_larger_of_two(
    tmp_path: Path, image: tuple[int, int], output_stride: int, expected: tuple[int, int]
) -> None:
    for folder, pixels in (("images", np.zeros((*image, 3), np.uint8)), ("labels", np.zeros(image, np.uint8))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "only.png")
    assert natural_input(tmp_path, output_stride, VOC) == (expected, "stretch")
    assert all(side % output_stride == 1 for side in (*expected, *crop_for(expected, output_stride)))


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


def test_every_option_that_takes_a_size_says_that_one_number_is_a_square() -> None:
    commands = command_line.commands().values()
    options = [p for command in commands for p in command.params if p.name in ("size", "crop")]
    assert len(options) > 5 and all("65 is 65x65" in str(option.help) for option in options)
    assert parse_size("65") == (65, 65)
