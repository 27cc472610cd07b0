"""Soft shadows on the ground of trees, cars and people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.scenes.camera import Camera
from dlv3deploy.scenes.canvas import SHIFT, fixed_point
from dlv3deploy.scenes.look import Look

LONGEST_M = 16.0
SOFT_SHARE = 0.012  # the blur, in widths of the image


@dataclass(frozen=True)
class Blob:
    """A shadow: the footprint (N×2: x, z in metres), and how high above it the thing begins and ends; `density` is 0 to 1."""

    footprint: NDArray[np.float64]
    bottom_m: float
    top_m: float
    density: float


def disc(x: float, z: float, radius: float) -> NDArray[np.float64]:
    turn = np.arange(12) * (2 * np.pi / 12)
    return np.stack((x + radius * np.cos(turn), z + radius * np.sin(turn)), axis=1)


def paint_shadows(camera: Camera, look: Look, blobs: Iterable[Blob]) -> NDArray[np.uint8]:
    """H×W, 255 where a shadow is complete: each thing's outline is swept along the ground, away from the sun."""
    import cv2

    mask = np.zeros((camera.height, camera.width), np.uint8)
    away = -look.sun[[0, 2]] / max(float(look.sun[1]), 0.05)
    strength = min(1.0, float(look.direct.mean()) / 0.6)
    for blob in sorted(blobs, key=lambda each: each.density):  # a darker one covers a lighter one
        reach = np.array((blob.bottom_m, blob.top_m))
        shifts = away[None] * reach[:, None] * min(1.0, LONGEST_M / max(1e-6, float(np.linalg.norm(away)) * blob.top_m))
        swept = np.concatenate([blob.footprint + shift for shift in shifts]).astype(np.float32)
        _darken(mask, camera, cv2.convexHull(swept)[:, 0, :], blob.density * strength)
        if blob.bottom_m == 0:  # where it stands, the sky is hidden too
            _darken(mask, camera, blob.footprint, blob.density)
    width = 2 * int(camera.width * SOFT_SHARE / 2) + 1
    return np.asarray(cv2.blur(mask, (width, max(1, width // 2))), np.uint8)


def _darken(mask: NDArray[np.uint8], camera: Camera, footprint: NDArray[Any], share: float) -> None:
    import cv2

    outline = camera.outline(np.stack((footprint[:, 0], np.zeros(len(footprint)), footprint[:, 1]), axis=1))
    if len(outline) >= 3:
        cv2.fillConvexPoly(mask, fixed_point(outline), int(255 * share), cv2.LINE_8, SHIFT)
