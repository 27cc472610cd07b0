"""How pictures fit `train`'s input: as the options say, and where they are silent as the pictures are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dlv3deploy.commands.options import Size, parse_choice, parse_size, parse_std, parse_triple

if TYPE_CHECKING:
    from dlv3deploy.core.classes import Classes
    from dlv3deploy.core.spec import InputSpec, ResizeRule, Triple

LARGEST_SIDE = 513  # the paper's, section 4.1
SIZES_LOOKED_AT = 64


@dataclass(frozen=True)
class InputOptions:
    """What the options say of the input and of the crops; None where they are silent."""

    size: Size | None
    crop: Size | None
    resize: ResizeRule | None
    mean: Triple | None
    std: Triple | None

    def fitted(self, data: Path, classes: Classes, output_stride: int, begun: InputSpec | None) -> tuple[InputSpec, Size]:
        """The input and the crop. What is left open comes from the checkpoint that is `begun` with, and from the pictures."""
        from dlv3deploy.core.spec import InputSpec

        size, resize = self.size, self.resize or (begun.resize if begun else None)
        if size is None or resize is None:
            natural, rule = natural_input(data, output_stride, classes)
            size, resize = size or natural, resize or rule
        usual = begun or InputSpec(*size)
        frame = InputSpec(*size, resize=resize, mean=self.mean or usual.mean, std=self.std or usual.std)
        return frame, self.crop or crop_for(size, output_stride)


def parse_input(
    size: str | None, crop: str | None, resize: str | None, mean: str | None, std: str | None, output_stride: int
) -> InputOptions:
    """The options as they were written. Raises UserError."""
    from dlv3deploy.core.spec import ResizeRule

    return InputOptions(
        _fitting(size, output_stride),
        _fitting(crop, output_stride),
        None if resize is None else parse_choice(resize, "--resize", get_args(ResizeRule)),
        parse_triple(mean, "--mean"),
        parse_std(std),
    )


def _fitting(text: str | None, output_stride: int) -> Size | None:
    from dlv3deploy.core.spec import check_size

    if text is None:
        return None
    size = parse_size(text)
    check_size(*size, output_stride)
    return size


def natural_input(data: Path, output_stride: int, classes: Classes) -> tuple[Size, ResizeRule]:
    """(height, width) and resize rule for the validation images.

    Images of one size are stretched to the nearest sides of k · stride + 1 (the larger of two), which moves hardly anything and
    lets scores be interpolated with aligned corners. Images of several sizes keep their proportions in such a square that holds
    the largest, up to the paper's 513.
    """
    sizes = _sizes(data, classes)
    if len(sizes) > 1:
        largest = min(LARGEST_SIDE, max(max(size) for size in sizes))
        side = -(-(largest - 1) // output_stride) * output_stride + 1
        return (side, side), "letterbox"
    height, width = (max(1, (2 * (side - 1) // output_stride + 1) // 2) * output_stride + 1 for side in sizes[0])
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
