"""What a scene is painted on: colours, class ids and depths, always changed together so that they agree.

Things are painted from far to near. Colours have smooth edges (as a lens gives), class ids never do: the same polygon, with
sub-pixel corners, decides both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, hypot

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.scenes.camera import Camera, Points
from dlv3deploy.scenes.look import Bgr

SHIFT = 4  # polygon corners are given to OpenCV in sixteenths of a pixel
FAR_M = 1e6  # the depth of the sky
PLAIN_PX = 6.0  # narrower walls have no texture

Texture = NDArray[np.uint8]  # H×W×3 BGR, or H×W×4 with colours already multiplied by alpha
Corners = NDArray[np.int32]  # N×2 in sixteenths of a pixel


@dataclass(frozen=True)
class Canvas:
    """`frame` H×W×3 uint8 BGR without air or lens, `label` H×W uint8 class ids, `depth` H×W float32 metres."""

    frame: NDArray[np.uint8]
    label: NDArray[np.uint8]
    depth: NDArray[np.float32]

    @classmethod
    def blank(cls, height: int, width: int) -> Canvas:
        return cls(
            np.zeros((height, width, 3), np.uint8),
            np.zeros((height, width), np.uint8),
            np.full((height, width), FAR_M, np.float32),
        )

    def shape(self, outline: Points, colour: Bgr, class_id: int, depth: float) -> None:
        """Fill a convex polygon (N×2 pixels; nothing when N < 3)."""
        if len(outline) >= 3:
            self.fill(fixed_point(outline), colour.tolist(), class_id, depth)

    def fill(self, corners: Corners, colour: Sequence[float], class_id: int, depth: float) -> None:
        """`shape` for corners in fixed point."""
        import cv2

        cv2.fillConvexPoly(self.frame, corners, colour, cv2.LINE_AA, SHIFT)
        cv2.fillConvexPoly(self.label, corners, class_id, cv2.LINE_8, SHIFT)
        cv2.fillConvexPoly(self.depth, corners, depth, cv2.LINE_8, SHIFT)

    def detail(self, outline: Points, colour: Bgr) -> None:
        """Colour a convex polygon that lies within a shape painted before; classes and depths stay."""
        if len(outline) >= 3:
            self.tint(fixed_point(outline), colour.tolist())

    def tint(self, corners: Corners, colour: Sequence[float]) -> None:
        """`detail` for corners in fixed point."""
        import cv2

        cv2.fillConvexPoly(self.frame, corners, colour, cv2.LINE_AA, SHIFT)

    def wall(self, camera: Camera, corners: Points, texture: Sequence[Texture], class_id: int) -> None:
        """Paint a texture on an upright rectangle.

        `corners` are bottom start, bottom end, top end and top start (4×3 world metres). `texture` is a pyramid, finest first;
        its left edge is at the start, its bottom row at the bottom.
        """
        import cv2

        seen = camera.to_camera(corners)
        outline = camera.outline_of_seen(seen)
        if len(outline) < 3:
            return
        height, width = self.label.shape
        (low_x, low_y), (high_x, high_y) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
        left, top, right, bottom = (
            max(0, floor(low_x)),
            max(0, floor(low_y)),
            min(width, ceil(high_x) + 1),
            min(height, ceil(high_y) + 1),
        )
        if right <= left or bottom <= top:
            return
        if high_x - low_x < PLAIN_PX:
            self.shape(outline, texture[-1].mean(axis=(0, 1)), class_id, float(seen[:2, 2].mean()))
            return
        size = (right - left, bottom - top)
        mask = np.zeros((size[1], size[0]), np.uint8)
        cv2.fillConvexPoly(mask, fixed_point(outline - (left, top)), 1, cv2.LINE_8, SHIFT)

        chosen = _level(texture, outline)
        back = _texture_of_image(camera, seen, chosen.shape) @ np.array(((1, 0, left), (0, 1, top), (0, 0, 1.0)))
        painted = cv2.warpPerspective(
            chosen, back, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        window = np.s_[top:bottom, left:right]
        cv2.copyTo(painted, mask, self.frame[window])
        cv2.fillConvexPoly(self.label, fixed_point(outline), class_id, cv2.LINE_8, SHIFT)
        np.copyto(self.depth[window], _wall_depth(camera, seen, np.arange(left, right)), where=mask.view(np.bool_))

    def sprite(self, pyramid: Sequence[Texture], box: tuple[float, float, float, float], class_id: int, depth: float) -> None:
        """Paint a flat picture (pyramid of H×W×4, finest first) into `box` (left, top, right, bottom in pixels)."""
        import cv2

        height, width = self.label.shape
        left, top = max(0, floor(box[0])), max(0, floor(box[1]))
        right, bottom = min(width, ceil(box[2]) + 1), min(height, ceil(box[3]) + 1)
        if right <= left or bottom <= top:
            return
        wanted = max(box[2] - box[0], 1e-3)
        chosen = next((level for level in reversed(pyramid) if level.shape[1] >= wanted), pyramid[0])
        scale_x, scale_y = wanted / chosen.shape[1], max(box[3] - box[1], 1e-3) / chosen.shape[0]
        forward = np.array(((scale_x, 0, box[0] - left), (0, scale_y, box[1] - top)))
        drawn = cv2.warpAffine(chosen, forward, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
        window = np.s_[top:bottom, left:right]
        alpha = drawn[:, :, 3]
        rest = cv2.multiply(self.frame[window], cv2.merge([255 - alpha] * 3), scale=1 / 255)
        self.frame[window] = cv2.add(rest, drawn[:, :, :3])
        inside = alpha >= 128
        self.label[window][inside] = class_id
        self.depth[window][inside] = depth


def fixed_point(outline: Points) -> Corners:
    """Pixels as OpenCV's fixed-point polygons take them."""
    return np.rint(outline * (1 << SHIFT)).astype(np.int32)


def _level(texture: Sequence[Texture], outline: Points) -> Texture:
    """The level of the pyramid whose diagonal is about as long as that of the wall in the image."""
    extent = outline.max(axis=0) - outline.min(axis=0)
    for level in reversed(texture):
        if hypot(level.shape[0], level.shape[1]) >= 0.9 * hypot(extent[0], extent[1]):
            return level
    return texture[0]


def _texture_of_image(camera: Camera, seen: Points, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """3×3: homogeneous image pixels to texture pixels, for the plane through `seen`'s start, bottom end and top start."""
    start, along, up = seen[0], seen[1] - seen[0], seen[3] - seen[0]
    lens = np.array(((camera.focal, 0, camera.middle), (0, -camera.focal, camera.horizon), (0, 0, 1.0)))
    eye = np.array((0.0, camera.y, 0.0))
    plane = lens @ np.stack((along, up, start - eye), axis=1)
    pixels = np.array(((shape[1] - 1.0, 0, 0), (0, 1.0 - shape[0], shape[0] - 1.0), (0, 0, 1.0)))
    return np.asarray(pixels @ np.linalg.inv(plane), np.float64)


def _wall_depth(camera: Camera, seen: Points, columns: NDArray[np.int_]) -> NDArray[np.float32]:
    """The depth of an upright plane in each image column, in metres (1×columns)."""
    slope = (columns - camera.middle) / camera.focal
    (x0, _, z0), (dx, _, dz) = seen[0], seen[1] - seen[0]
    across = dx - slope * dz
    along = (slope * z0 - x0) / np.where(np.abs(across) < 1e-9, 1e-9, across)
    low, high = sorted((float(seen[0, 2]), float(seen[1, 2])))
    return np.asarray(np.clip(z0 + along * dz, max(low, 0.1), max(high, 0.1))[None, :], np.float32)


def pyramid_of(texture: Texture, smallest: int = 6) -> tuple[Texture, ...]:
    """The texture and its halves, quarters, … down to about `smallest` pixels."""
    import cv2

    levels = [texture]
    while min(levels[-1].shape[:2]) >= 2 * smallest:
        height, width = levels[-1].shape[:2]
        levels.append(np.asarray(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8))
    return tuple(levels)
