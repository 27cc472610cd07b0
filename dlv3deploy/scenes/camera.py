"""The pinhole camera of a scene.

World: x to the right, y up, z along the road, in metres; the ground is y = 0. Image: column u and row v in pixels, centres
at whole numbers. The camera turns about the vertical only; looking up or down is a shift of the horizon (as with a view
camera), so that vertical things stay vertical and one image column of a wall has one depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import cos, sin

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]

NEAR_M = 0.4  # nothing closer than this is drawn
GUARD_PX = 8000.0  # OpenCV's fixed-point polygons overflow at 32768 pixels


@dataclass(frozen=True)
class Camera:
    """Image size and focal length in pixels, the horizon's row, position in metres, yaw in radians (positive to the right)."""

    height: int
    width: int
    focal: float
    horizon: float
    x: float
    y: float
    z: float
    yaw: float

    @property
    def middle(self) -> float:
        """The column of the optical axis."""
        return (self.width - 1) / 2

    def to_camera(self, points: ArrayLike) -> Points:
        """World points (N×3) as N×3 of metres to the right, up from the ground, and ahead (the depth)."""
        turn, shift = self._pose
        return np.asarray(np.asarray(points, np.float64) @ turn + shift, np.float64)

    def to_image(self, seen: Points) -> Points:
        """Camera points (N×3, all with depth > 0) as N×2 of column and row."""
        image = np.empty((len(seen), 2))
        scale = self.focal / seen[:, 2]
        image[:, 0] = self.middle + seen[:, 0] * scale
        image[:, 1] = self.horizon + (self.y - seen[:, 1]) * scale
        return image

    def outline(self, points: ArrayLike) -> Points:
        """The image of a flat convex polygon (N×3 world points): M×2 pixels, M = 0 when it is behind the camera."""
        return self.outline_of_seen(self.to_camera(points))

    def outline_of_seen(self, seen: Points) -> Points:
        """`outline` for points that are already in camera coordinates."""
        if seen[:, 2].min() < NEAR_M:
            seen = _clip(seen, 2, NEAR_M, 1.0)
            if len(seen) == 0:
                return np.zeros((0, 2))
        image = self.to_image(seen)
        if np.abs(image).max() > GUARD_PX:
            for axis in (0, 1):
                for sign in (1.0, -1.0):
                    image = _clip(image, axis, -GUARD_PX, sign)
        return image

    @cached_property
    def _pose(self) -> tuple[Points, Points]:
        """The turn (3×3) and the shift (3) from world to camera coordinates."""
        c, s = cos(self.yaw), sin(self.yaw)
        turn = np.array(((c, 0, s), (0, 1, 0), (-s, 0, c)))
        return turn, -np.array((self.x, 0, self.z)) @ turn

    def depth_of(self, x: float, z: float) -> float:
        """Metres ahead of the camera of one spot on the ground."""
        return sin(self.yaw) * (x - self.x) + cos(self.yaw) * (z - self.z)


def _clip(points: Points, axis: int, limit: float, sign: float) -> Points:
    """The part of a convex polygon where sign × coordinate ≥ limit (Sutherland and Hodgman)."""
    kept: list[Points] = []
    for here, there in zip(points, np.roll(points, -1, axis=0), strict=True):
        a, b = sign * here[axis] - limit, sign * there[axis] - limit
        if a >= 0:
            kept.append(here)
        if (a >= 0) != (b >= 0):
            kept.append(here + (there - here) * (a / (a - b)))
    return np.array(kept) if kept else np.zeros((0, points.shape[1]))
