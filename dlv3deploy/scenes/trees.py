"""Painting trees: a trunk, and a crown that always faces the camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlv3deploy.scenes.camera import NEAR_M, Camera
from dlv3deploy.scenes.canvas import Canvas, Texture
from dlv3deploy.scenes.classes import TREE
from dlv3deploy.scenes.look import Look, bgr
from dlv3deploy.scenes.road import Road
from dlv3deploy.scenes.street import Tree

BARK = bgr(98, 76, 60)
TRUNK_SHARE = 0.36  # of the tree's height that is below the crown
CROWN_SHARE = 0.74  # the crown's height, in heights of the tree: it overlaps the trunk
WIDE_SHARE = 0.70  # the crown's width


def paint_tree(
    canvas: Canvas, camera: Camera, road: Road, look: Look, tree: Tree, crown: Sequence[Texture], sunlit: float
) -> None:
    x = road.centre_at(tree.z) + tree.offset
    right, _, depth = camera.to_camera(((x, 0, tree.z),))[0].tolist()
    if depth < 2 * NEAR_M:
        return
    scale = camera.focal / depth
    column, foot = camera.middle + right * scale, camera.horizon + camera.y * scale
    half = tree.height_m * WIDE_SHARE / 2 * scale
    top = foot - tree.height_m * scale
    if column + half < 0 or column - half > camera.width:
        return
    _paint_trunk(canvas, look, (column, foot), tree.height_m * scale, depth, sunlit)
    canvas.sprite(crown, (column - half, top, column + half, top + tree.height_m * CROWN_SHARE * scale), TREE, depth)


def _paint_trunk(canvas: Canvas, look: Look, foot: tuple[float, float], height_px: float, depth: float, sunlit: float) -> None:
    """A tapering trunk, darker on the side away from the sun."""
    (column, base), top = foot, foot[1] - height_px * (TRUNK_SHARE + 0.16)
    low, high = height_px * 0.022, height_px * 0.013
    trunk = np.array(((column - low, base), (column + low, base), (column + high, top), (column - high, top)))
    side = 1.0 if look.sun[0] > 0 else -1.0
    canvas.shape(trunk, BARK * look.light((-0.6 * side, 0.0, -0.8), 0.0), TREE, depth)
    if low < 1:
        return
    lit = np.array(
        (
            (column + 0.1 * side * low, base),
            (column + side * low, base),
            (column + side * high, top),
            (column + 0.1 * side * high, top),
        )
    )
    canvas.detail(lit, BARK * look.light((side, 0.0, 0.0), sunlit) * np.float32(1.1))
