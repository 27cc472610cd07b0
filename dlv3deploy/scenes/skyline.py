"""What closes the view far down the street: the roofs of a town and a line of trees, seen through the haze."""

from __future__ import annotations

from math import ceil

import numpy as np

from dlv3deploy.scenes.camera import Camera
from dlv3deploy.scenes.canvas import Canvas
from dlv3deploy.scenes.classes import BUILDING, TREE
from dlv3deploy.scenes.look import Look, bgr
from dlv3deploy.scenes.noise import Noise

NEAREST_M = 165.0  # everything in the street is nearer
HAZE_AS_M = 230.0
BLOCKS_A_RADIAN = 26.0
BUMPS_A_RADIAN = 160.0


def paint_skyline(canvas: Canvas, camera: Camera, look: Look, noise: Noise) -> None:
    """Cover the strip from the foot of the skyline up to its silhouette."""
    foot = min(camera.height, ceil(camera.horizon + camera.focal * camera.y / NEAREST_M) + 1)
    bearing = camera.yaw + np.arctan((np.arange(camera.width) - camera.middle) / camera.focal)
    turn = np.mod(bearing * BLOCKS_A_RADIAN, len(noise)).astype(int)
    roofs = np.clip(0.050 + 0.018 * noise[0, turn], 0.02, 0.11)
    bump = np.mod(bearing * BUMPS_A_RADIAN, len(noise)).astype(int)
    crowns = np.clip(0.026 + 0.007 * noise[7, bump] + 0.006 * noise[9, turn], 0.012, 0.06)
    for heights, colour, class_id in ((roofs, bgr(138, 128, 122), BUILDING), (crowns, look.leaves[0], TREE)):
        top = camera.horizon - heights * camera.focal
        highest = max(0, int(top.min()))
        if highest >= foot:
            continue
        inside = np.arange(highest, foot)[:, None] >= top[None, :]
        window = np.s_[highest:foot]
        shades = colour * look.light((0.0, 0.3, -0.95)) * (1 + 0.10 * noise[3, turn])[:, None]
        strip = np.clip(shades, 0, 255).astype(np.uint8)
        np.copyto(canvas.frame[window], strip[None], where=inside[:, :, None])
        canvas.label[window][inside] = class_id
        canvas.depth[window][inside] = HAZE_AS_M
