"""Painting cars: the faces that look at the camera, lit, with glass that reflects the sky and lamps that shine."""

from __future__ import annotations

from itertools import pairwise
from math import atan, cos, sin

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.scenes.camera import GUARD_PX, NEAR_M, Camera, Points
from dlv3deploy.scenes.canvas import Canvas, Corners, fixed_point
from dlv3deploy.scenes.car_shapes import SHAPES, Material, Shape
from dlv3deploy.scenes.classes import CAR
from dlv3deploy.scenes.look import Bgr, Look, bgr, mix
from dlv3deploy.scenes.road import Road
from dlv3deploy.scenes.street import Car

COLOURS = (
    bgr(176, 30, 34), bgr(238, 238, 236), bgr(34, 36, 42), bgr(146, 150, 156), bgr(28, 70, 138),
    bgr(92, 98, 106), bgr(206, 206, 200), bgr(34, 94, 84), bgr(222, 154, 36),
)  # fmt: skip
FIXED: dict[Material, Bgr] = {
    "tyre": bgr(34, 34, 36), "rim": bgr(164, 166, 170), "trim": bgr(46, 46, 50), "plate": bgr(228, 226, 206),
    "shadow": bgr(20, 20, 24),
}  # fmt: skip
SMALL_PX = 9.0  # cars lower than this in the image are painted without small parts


def paint_car(canvas: Canvas, camera: Camera, road: Road, look: Look, car: Car, sunlit: float) -> None:
    axes = axes_of(road, car)
    origin = np.array((road.centre_at(car.z) + car.offset, 0.0, car.z))
    depth = camera.depth_of(float(origin[0]), car.z)
    if depth < -3:
        return
    shape = SHAPES[car.kind]
    eye = axes @ (np.array((camera.x, camera.y, camera.z)) - origin)
    visible = ((eye - shape.anchors) * shape.normals).sum(axis=1) > 0
    if camera.focal * 1.5 / max(depth, 1.0) < SMALL_PX:
        visible &= shape.coarse
    outlines = _outlines(camera, camera.to_camera(shape.corners @ axes + origin), shape)
    colours = _colours(look, car, shape, shape.normals @ axes, sunlit).tolist()
    for i in np.flatnonzero(visible).tolist():
        if len(outlines[i]) < 3:
            continue
        if shape.parts[i].role == "outline":
            canvas.fill(outlines[i], colours[i], CAR, max(depth, NEAR_M))
        else:
            canvas.tint(outlines[i], colours[i])


def axes_of(road: Road, car: Car) -> Points:
    """The car's right, up and forward as world directions (the rows of a 3×3)."""
    angle = atan(road.slope(car.z))
    c, s = cos(angle) * car.heading, sin(angle) * car.heading
    return np.array(((c, 0.0, -s), (0.0, 1.0, 0.0), (s, 0.0, c)))


def _outlines(camera: Camera, seen: Points, shape: Shape) -> list[Corners]:
    """The image of every part; all at once when nothing has to be clipped."""
    pieces = [slice(start, end) for start, end in pairwise(shape.starts)]
    if seen[:, 2].min() >= NEAR_M:
        image = camera.to_image(seen)
        if np.abs(image).max() < GUARD_PX:
            corners = fixed_point(image)
            return [corners[piece] for piece in pieces]
    return [fixed_point(camera.outline_of_seen(seen[piece])) for piece in pieces]


def _colours(look: Look, car: Car, shape: Shape, normals: Points, sunlit: float) -> NDArray[np.float32]:
    """The colour of every part, P×3: its own in this light, with a share of something that it reflects or emits."""
    upward = np.maximum(normals[:, 1], 0)
    own: dict[Material, Bgr] = {
        **FIXED, "paint": COLOURS[car.colour], "glass": bgr(0, 0, 0), "head": bgr(222, 226, 230), "tail": bgr(128, 16, 20),
    }  # fmt: skip
    colours = np.stack([own[part.material] for part in shape.parts]) * look.lights(normals, sunlit)
    on = car.lights * look.lamps
    head, tail = min(1.0, 2 * on), max(min(1.0, 1.2 * on), car.braking)
    for i, part in enumerate(shape.parts):
        if part.material == "paint":
            reflected = look.sky.zenith if upward[i] > 0.5 else look.sky.horizon
            colours[i] = mix(colours[i], reflected, 0.07 + 0.14 * float(upward[i]))
        elif part.material == "glass":
            colours[i] = mix(bgr(26, 32, 36), look.sky.zenith, 0.16 + 0.34 * float(upward[i]))
        elif part.material == "head":
            colours[i] = mix(colours[i], bgr(255, 250, 226), head)
        elif part.material == "tail":
            colours[i] = mix(colours[i], bgr(255, 44, 40), tail)
    return colours
