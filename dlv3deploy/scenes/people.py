"""Painting people: head, hair, coat, arms and striding legs, turned towards the camera."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin

import numpy as np

from dlv3deploy.scenes.camera import Camera, Points
from dlv3deploy.scenes.canvas import Canvas
from dlv3deploy.scenes.classes import PERSON
from dlv3deploy.scenes.look import Bgr, Look, bgr
from dlv3deploy.scenes.road import Road
from dlv3deploy.scenes.street import Person

COATS = (
    bgr(178, 44, 48), bgr(40, 74, 130), bgr(226, 186, 60), bgr(52, 56, 64), bgr(226, 224, 216),
    bgr(46, 112, 84), bgr(206, 104, 50), bgr(124, 70, 130),
)  # fmt: skip
TROUSERS = (bgr(42, 50, 76), bgr(58, 56, 58), bgr(122, 104, 82))
SKINS = (bgr(236, 192, 162), bgr(198, 146, 112), bgr(132, 90, 66), bgr(92, 62, 48))
HAIRS = (bgr(44, 32, 26), bgr(110, 76, 44), bgr(196, 160, 100), bgr(30, 28, 30))
MIN_DEPTH_M = 1.2
SMALL_PX = 20.0  # people lower than this in the image are painted in three strokes


@dataclass(frozen=True)
class Figure:
    """Brings body coordinates (x to the image's right, y up, in heights of the person) into the image."""

    canvas: Canvas
    column: float
    foot: float
    scale: float  # pixels for one body height
    depth: float

    def limb(self, start: tuple[float, float], end: tuple[float, float], widths: tuple[float, float], colour: Bgr) -> None:
        """A straight limb between two joints, with its widths there."""
        (x0, y0), (x1, y1) = start, end
        length = max(1e-6, float(np.hypot(x1 - x0, y1 - y0)))
        nx, ny = (y1 - y0) / length / 2, -(x1 - x0) / length / 2
        w0, w1 = widths
        self.shape(
            (
                (x0 - nx * w0, y0 - ny * w0),
                (x0 + nx * w0, y0 + ny * w0),
                (x1 + nx * w1, y1 + ny * w1),
                (x1 - nx * w1, y1 - ny * w1),
            ),
            colour,
        )

    def shape(self, corners: tuple[tuple[float, float], ...], colour: Bgr) -> None:
        self.canvas.shape(self._outline(corners), colour, PERSON, self.depth)

    def detail(self, corners: tuple[tuple[float, float], ...], colour: Bgr) -> None:
        self.canvas.detail(self._outline(corners), colour)

    def _outline(self, corners: tuple[tuple[float, float], ...]) -> Points:
        return np.array(corners) * (self.scale, -self.scale) + (self.column, self.foot)


def paint_person(canvas: Canvas, camera: Camera, road: Road, look: Look, person: Person, sunlit: float) -> None:
    right, _, depth = camera.to_camera(((road.centre_at(person.z) + person.offset, 0, person.z),))[0].tolist()
    if depth < MIN_DEPTH_M:
        return
    scale = camera.focal / depth
    column, foot = camera.middle + right * scale, camera.horizon + camera.y * scale
    figure = Figure(canvas, column, foot, person.height_m * scale, depth)
    side = 1.0 if look.sun[0] > 0 else -1.0
    shade, lit = look.light((-0.5 * side, 0.2, -0.85), sunlit), look.light((0.75 * side, 0.3, -0.6), sunlit)
    if figure.scale < SMALL_PX:
        _small(figure, person, lit)
        return
    _legs(figure, person, TROUSERS[person.clothes % len(TROUSERS)], shade, lit)
    _trunk(figure, person, COATS[person.clothes % len(COATS)], SKINS[person.clothes % len(SKINS)], (shade, lit), side)
    _head(figure, person, (shade, lit), side)


def _small(figure: Figure, person: Person, light: Bgr) -> None:
    figure.limb((0, 0), (0, 0.48), (0.14, 0.17), TROUSERS[person.clothes % len(TROUSERS)] * light)
    figure.limb((0, 0.46), (0, 0.83), (0.24, 0.26), COATS[person.clothes % len(COATS)] * light)
    figure.limb((0, 0.85), (0, 1.0), (0.11, 0.10), SKINS[person.clothes % len(SKINS)] * light)


def _legs(figure: Figure, person: Person, colour: Bgr, shade: Bgr, lit: Bgr) -> None:
    """From the side the legs scissor; from the front the feet lift in turn."""
    swing = sin(person.step)
    across = abs(person.crossing)
    for sign, light in ((-1.0, shade), (1.0, lit)):
        hip = (sign * 0.045 * (1 - 0.6 * across), 0.49)
        forward = sign * swing
        foot = (hip[0] + across * 0.17 * forward, 0.025 + 0.05 * max(0.0, sign * cos(person.step)))
        knee = ((hip[0] + foot[0]) / 2 + person.crossing * 0.025, 0.27)
        figure.limb(hip, knee, (0.105, 0.085), colour * light)
        figure.limb(knee, foot, (0.085, 0.06), colour * light)
        toe = (foot[0] + person.crossing * 0.09 + (1 - across) * sign * 0.02, foot[1] - 0.01)
        figure.limb((foot[0] - person.crossing * 0.02, foot[1] - 0.01), toe, (0.05, 0.05), bgr(34, 30, 30) * light)


def _trunk(figure: Figure, person: Person, coat: Bgr, skin: Bgr, lights: tuple[Bgr, Bgr], side: float) -> None:
    across = abs(person.crossing)
    slim = 1 - 0.35 * across
    swing = sin(person.step) * (0.5 + 0.5 * across)
    long_coat = 0.36 if person.clothes % 5 == 0 else 0.46
    for sign, light in ((-1.0, lights[0]), (1.0, lights[1])):
        shoulder = (sign * 0.125 * slim, 0.79)
        hand = (sign * 0.15 * slim - sign * across * 0.16 * swing, 0.47 + 0.03 * abs(swing))
        figure.limb(shoulder, hand, (0.075, 0.05), coat * light * np.float32(0.92))
        figure.limb(hand, (hand[0], hand[1] - 0.035), (0.045, 0.035), skin * light)
    chest, waist, hem = 0.135 * slim, 0.105 * slim, 0.12 * slim
    figure.shape(
        (
            (-hem, long_coat),
            (hem, long_coat),
            (waist, 0.60),
            (chest, 0.78),
            (0.06, 0.835),
            (-0.06, 0.835),
            (-chest, 0.78),
            (-waist, 0.60),
        ),
        coat * lights[0],
    )
    figure.detail(
        (
            (0.02 * side, long_coat),
            (side * hem, long_coat),
            (side * waist, 0.60),
            (side * chest, 0.78),
            (side * 0.06, 0.835),
            (0.02 * side, 0.835),
        ),
        coat * lights[1],
    )
    if person.clothes % 3 == 0:
        figure.limb((0.11 * slim, 0.66), (0.12 * slim, 0.45), (0.06, 0.10), bgr(92, 60, 40) * lights[1])


def _head(figure: Figure, person: Person, lights: tuple[Bgr, Bgr], side: float) -> None:
    skin, hair = SKINS[person.clothes % len(SKINS)], HAIRS[(person.clothes // 2) % len(HAIRS)]
    figure.limb((0, 0.82), (0, 0.88), (0.055, 0.05), skin * lights[0])
    turn = np.arange(12) * (2 * np.pi / 12)
    oval = tuple((0.058 * float(np.cos(a)), 0.925 + 0.075 * float(np.sin(a))) for a in turn)
    figure.shape(oval, skin * lights[0])
    half = tuple((abs(x) * side, y) for x, y in oval[9:] + oval[:4])
    figure.detail(half, skin * lights[1])
    cap = tuple((1.06 * x, max(y, 0.935)) for x, y in oval)
    figure.shape(cap, hair * lights[0])
