"""From a camera's frame to the network's input, and the geometry that leads back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.engine import Batch
from dlv3deploy.core.images import Frame
from dlv3deploy.core.spec import InputSpec


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a frame lie in the network's input.

    Along each axis, in pixels with half-pixel centres: input = (frame + ½) · scale + offset − ½. In a mirrored input the
    horizontal scale is negative.
    """

    frame: tuple[int, int]  # height, width
    input: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    def to_size(self, height: int, width: int) -> Geometry:
        """The geometry of the same picture shown at another size."""
        ratio = self.frame[0] / height, self.frame[1] / width
        return Geometry((height, width), self.input, (self.scale[0] * ratio[0], self.scale[1] * ratio[1]), self.offset)

    def mirrored(self) -> Geometry:
        """The geometry of the same input mirrored left to right."""
        scale, offset = (self.scale[0], -self.scale[1]), (self.offset[0], self.input[1] - self.offset[1])
        return Geometry(self.frame, self.input, scale, offset)

    def window(self, top: int, left: int, size: tuple[int, int]) -> Geometry:
        """The geometry of the part of the input that begins at (top, left), which may reach beyond it."""
        return Geometry(self.frame, size, self.scale, (self.offset[0] - top, self.offset[1] - left))

    def input_positions(self, axis: int) -> NDArray[np.float64]:
        """For each frame row (axis 0) or column (axis 1), its position in the input, in input pixels."""
        return (np.arange(self.frame[axis], dtype=np.float64) + 0.5) * self.scale[axis] + self.offset[axis] - 0.5


def preprocess(frame: Frame, spec: InputSpec) -> tuple[Batch, Geometry]:
    """A 1×3×height×width float32 batch from an H×W×3 BGR uint8 frame, as `spec` says, and where its pixels went."""
    import cv2

    size, geometry = (spec.height, spec.width), geometry_of(frame.shape[0], frame.shape[1], spec)
    if spec.resize == "stretch":
        inner = size
    else:
        inner = round(frame.shape[0] * geometry.scale[0]), round(frame.shape[1] * geometry.scale[1])
    resized = frame if frame.shape[:2] == inner else cv2.resize(frame, inner[::-1], interpolation=cv2.INTER_LINEAR)
    if inner != size:
        canvas = np.full((*size, 3), mean_colour(spec), np.uint8)
        top, left = round(geometry.offset[0]), round(geometry.offset[1])
        canvas[top : top + inner[0], left : left + inner[1]] = resized
        resized = canvas
    planes = resized[:, :, ::-1] if spec.colour_order == "rgb" else resized
    batch = np.empty((1, 3, *size), np.float32)
    for channel in range(3):
        scale = np.float32(1 / spec.std[channel])
        np.multiply(planes[:, :, channel], scale, out=batch[0, channel])
        batch[0, channel] -= np.float32(spec.mean[channel] * scale)
    return batch, geometry


def mean_colour(spec: InputSpec) -> tuple[int, int, int]:
    """The colour that normalises to about zero, in BGR: it fills what lies outside a picture, in training and afterwards."""
    colour = spec.mean[::-1] if spec.colour_order == "rgb" else spec.mean
    blue, green, red = (min(255, max(0, round(v))) for v in colour)
    return blue, green, red


def geometry_of(frame_height: int, frame_width: int, spec: InputSpec) -> Geometry:
    """The geometry of a frame of this size under `spec`'s resize rule."""
    frame, size = (frame_height, frame_width), (spec.height, spec.width)
    if spec.resize == "stretch":
        return Geometry(frame, size, (size[0] / frame[0], size[1] / frame[1]), (0.0, 0.0))
    scale = min(size[0] / frame[0], size[1] / frame[1])
    inner = max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))
    offset = float((size[0] - inner[0]) // 2), float((size[1] - inner[1]) // 2)
    return Geometry(frame, size, (inner[0] / frame[0], inner[1] / frame[1]), offset)
