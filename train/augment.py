"""The paper's augmentation (section 4.1): scale by 0.5 to 2.0, crop, flip left to right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.images import Frame, Mask


@dataclass(frozen=True)
class Augmentation:
    """`crop` is (height, width) in pixels; `scale` the range from which the resizing factor is drawn uniformly."""

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True

    def __call__(
        self, frame: Frame, label: Mask, ignore_index: int, fill: tuple[int, int, int], random: np.random.Generator
    ) -> tuple[Frame, Mask]:
        """A crop of the scaled, perhaps flipped pair; what lies outside the image is `fill` (BGR) and ignored."""
        import cv2

        factor = random.uniform(*self.scale)
        height, width = (max(1, round(side * factor)) for side in label.shape)
        frame = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        label = np.asarray(cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
        if self.flip and random.random() < 0.5:
            frame, label = frame[:, ::-1], label[:, ::-1]
        top, left = (_offset(side, want, random) for side, want in zip((height, width), self.crop, strict=True))
        return (
            _window(frame, top, left, self.crop, np.array(fill, np.uint8)),
            _window(label, top, left, self.crop, np.uint8(ignore_index)),
        )


def _offset(side: int, want: int, random: np.random.Generator) -> int:
    """Where the crop starts: inside the image when it is larger, otherwise so that the whole image is in the crop."""
    slack = side - want
    return int(random.integers(min(0, slack), max(0, slack) + 1))


def _window(
    pixels: NDArray[np.uint8], top: int, left: int, size: tuple[int, int], fill: NDArray[np.uint8] | np.uint8
) -> NDArray[np.uint8]:
    """The `size` window at (top, left), which may reach beyond the picture."""
    window = np.empty((*size, *pixels.shape[2:]), np.uint8)
    window[...] = fill
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(pixels.shape[0], top + size[0]), min(pixels.shape[1], left + size[1])
    window[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    return window
