"""How pictures fit `train`'s input where the options do not say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.commands.options import Size

if TYPE_CHECKING:
    from dlv3deploy.core.classes import Classes
    from dlv3deploy.core.datasets import Split
    from dlv3deploy.core.spec import ResizeRule

LARGEST_SIDE = 513  # the paper's, section 4.1
SIZES_LOOKED_AT = 64


def natural_input(data: Path, output_stride: int, classes: Classes) -> tuple[Size, ResizeRule]:
    """(height, width) and resize rule for the validation images.

    Images of one size are stretched to the nearest multiples of the output stride (the larger of two), which moves hardly
    anything. Images of several sizes keep their proportions in a square that holds the largest, up to the paper's 513.
    """
    sizes = _sizes(data, classes)
    if len(sizes) > 1:
        largest = min(LARGEST_SIDE, max(max(size) for size in sizes))
        side = -(-(largest - 1) // output_stride) * output_stride + 1
        return (side, side), "letterbox"
    height, width = (max(1, (2 * side // output_stride + 1) // 2) * output_stride for side in sizes[0])
    return (height, width), "stretch"


def _sizes(data: Path, classes: Classes) -> list[Size]:
    """The sizes (height, width) of validation images, each once: of all of a few, else of some spread evenly."""
    from PIL import Image

    from dlv3deploy.core.datasets import open_dataset

    samples = open_dataset(data, "val", classes).samples
    sizes: dict[Size, None] = {}
    for sample in samples[:: max(1, len(samples) // SIZES_LOOKED_AT)]:
        try:
            with Image.open(sample.image) as picture:
                sizes[picture.size[1], picture.size[0]] = None
        except (OSError, SyntaxError, ValueError):
            continue  # the check of all files names it
    if not sizes:
        frame, _ = samples[0].read()  # which says what is wrong with it
        sizes[frame.shape[0], frame.shape[1]] = None
    return list(sizes)


def crop_for(size: Size, output_stride: int) -> Size:
    """The input's size, each side the paper's 513 at most."""
    height, width = (side if side <= LARGEST_SIDE else LARGEST_SIDE // output_stride * output_stride + 1 for side in size)
    return height, width


def parse_resize(text: str) -> ResizeRule:
    """The rule that an option names. Raises UserError."""
    from typing import get_args

    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.spec import ResizeRule

    rules: dict[str, ResizeRule] = {rule: rule for rule in get_args(ResizeRule)}
    if text not in rules:
        raise UserError(f"--resize {text}", "is unknown", f"use one of {', '.join(rules)}")
    return rules[text]


def parse_split(text: str) -> Split:
    from dlv3deploy.core.errors import UserError

    if text not in ("train", "trainval"):
        raise UserError(f"--split {text}", "is not for training", "use train or trainval")
    return "train" if text == "train" else "trainval"
