"""The sky: a gradient, a glow around the sun, and clouds on a plane high above that drift with the wind."""

from __future__ import annotations

from math import ceil, cos, sin

import numpy as np

from dlv3deploy.scenes.camera import Camera
from dlv3deploy.scenes.canvas import Canvas
from dlv3deploy.scenes.classes import SKY
from dlv3deploy.scenes.look import Look
from dlv3deploy.scenes.noise import Noise, sample

CLOUD_TILE_PX = 110.0  # tile pixels for one cloud height sideways
WIND = 0.012  # cloud heights a second


def paint_sky(canvas: Canvas, camera: Camera, look: Look, clouds: Noise, time_s: float) -> None:
    """Colour everything above the horizon (at a third of the resolution: a sky has no fine detail)."""
    import cv2

    height, width = canvas.label.shape
    rows = min(height, ceil(camera.horizon) + 2)
    if rows <= 0:
        return
    small = (max(2, width // 3), max(2, rows // 3))
    right = ((np.arange(small[0], dtype=np.float32) + 0.5) * (width / small[0]) - 0.5 - camera.middle) / camera.focal
    up = (camera.horizon - (np.arange(small[1], dtype=np.float32)[:, None] + 0.5) * (rows / small[1]) + 0.5) / camera.focal
    c, s = np.float32(cos(camera.yaw)), np.float32(sin(camera.yaw))
    east, north = c * right + s, c - s * right
    length = np.sqrt(1 + right**2 + up**2)

    rise = np.clip(up / np.sqrt(1 + right**2) * 1.5, 0, 1) ** 0.7
    colour = look.sky.horizon + (look.sky.zenith - look.sky.horizon) * rise[:, :, None]

    sun = look.sun.astype(np.float32)
    towards = np.clip((east * sun[0] + up * sun[1] + north * sun[2]) / length, 0, 1)
    glow = 0.35 * towards**6 + 0.9 * towards**90 + 6.0 * towards**3000
    colour += (look.direct * 150)[None, None, :] * glow[:, :, None]

    height_over = np.maximum(up, 0.03)
    across = (east / height_over + np.float32((WIND * time_s) % 64)) * CLOUD_TILE_PX
    along = north / height_over * CLOUD_TILE_PX
    shape = sample(clouds, across, along)
    behind = sample(clouds, across + np.float32(14 * sun[0]), along + np.float32(14 * sun[2]))
    density = np.clip((shape - np.float32(1.6 - 3.2 * look.sky.cover)) * 0.7, 0, 1)
    density *= np.clip(up / 0.1, 0, 1) * 0.92
    lit = np.clip(0.88 + 0.12 * (shape - behind), 0.68, 1.05)
    colour += (look.sky.cloud * lit[:, :, None] - colour) * density[:, :, None]

    full = cv2.resize(np.clip(colour, 0, 255), (width, rows), interpolation=cv2.INTER_LINEAR)
    canvas.frame[:rows] = full.astype(np.uint8)
    canvas.label[:] = SKY
