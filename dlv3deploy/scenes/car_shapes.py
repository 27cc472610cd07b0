"""The bodies of cars: a convex lower body, a cabin on top, and the parts that are painted on their faces.

Car coordinates: x to the car's right, y up, z forward, in metres, from the spot on the ground below its middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Material = Literal["paint", "shadow", "glass", "tyre", "rim", "trim", "head", "tail", "plate"]
Role = Literal["outline", "inlay"]
Corner = tuple[float, float, float]

WHEEL_M = 0.32  # radius


@dataclass(frozen=True)
class Part:
    """A flat convex polygon: part of the silhouette, or an inlay on the face painted before it."""

    corners: tuple[Corner, ...]
    normal: Corner
    material: Material
    role: Role


@dataclass(frozen=True)
class Proportions:
    """Metres. The cabin's four z: rear and front at the belt line, rear and front at the roof."""

    length: float
    width: float
    belt: float
    top: float
    lean: float  # how much nearer to the middle each side is at the roof
    nose: float  # height of the bonnet's front edge
    cabin: tuple[float, float, float, float]
    windows: tuple[tuple[float, float], ...]  # where they begin and end on the cabin's side, in shares of it from the rear


TWO_DOORS = ((0.10, 0.47), (0.52, 0.92))
DRIVERS_DOOR = ((0.66, 0.95),)
SALOON = Proportions(4.6, 1.82, 0.93, 1.44, 0.24, 0.74, (-1.80, 1.00, -1.05, 0.15), TWO_DOORS)
HATCHBACK = Proportions(4.0, 1.76, 0.95, 1.50, 0.24, 0.76, (-1.93, 1.00, -1.50, 0.20), TWO_DOORS)
SUV = Proportions(4.6, 1.90, 1.08, 1.72, 0.24, 0.92, (-2.22, 0.95, -1.95, 0.30), TWO_DOORS)
VAN = Proportions(4.9, 1.94, 1.16, 2.05, 0.14, 0.98, (-2.42, 1.75, -2.36, 1.00), DRIVERS_DOOR)


def parts_of(car: Proportions) -> tuple[Part, ...]:
    """In painting order: what is below the body, the body and its details, the wheels, the cabin and its windows."""
    return (*_under(car), *_body(car), *_wheels(car), *_cabin(car))


def _quad(a: Corner, b: Corner, c: Corner, d: Corner) -> NDArray[np.float64]:
    return np.array((a, b, c, d))


def _face(quad: NDArray[np.float64], material: Material, inside: Corner, role: Role) -> Part:
    """A part whose normal points away from `inside`."""
    normal = np.cross(quad[1] - quad[0], quad[2] - quad[0])
    normal /= np.linalg.norm(normal)
    if normal @ (quad[0] - np.array(inside)) < 0:
        normal = -normal
    return Part(tuple(map(_corner, quad)), _corner(normal), material, role)


def _corner(values: NDArray[np.float64]) -> Corner:
    x, y, z = values.tolist()
    return x, y, z


def _inset(quad: NDArray[np.float64], left: float, bottom: float, right: float, top: float) -> NDArray[np.float64]:
    """A part of a quad (corners: bottom left, bottom right, top right, top left) by shares of its sides."""

    def at(u: float, v: float) -> NDArray[np.float64]:
        low, high = quad[0] + (quad[1] - quad[0]) * u, quad[3] + (quad[2] - quad[3]) * u
        return np.asarray(low + (high - low) * v, np.float64)

    return np.stack((at(left, bottom), at(right, bottom), at(right, top), at(left, top)))


def _under(car: Proportions) -> list[Part]:
    """The fronts and backs of the tyres, and the dark below the car between them."""
    parts = []
    for end in (1.0, -1.0):
        z = end * (car.length / 2 - 0.55)
        half = car.width / 2
        parts.append(Part(_strip(-half + 0.1, half - 0.1, 0.12, 0.4, z), (0.0, 0.0, end), "shadow", "outline"))
        for side in (-1.0, 1.0):
            low, high = sorted((side * (half - 0.24), side * (half - 0.02)))
            parts.append(Part(_strip(low, high, 0.0, 0.4, z), (0.0, 0.0, end), "tyre", "outline"))
    return parts


def _strip(left: float, right: float, bottom: float, top: float, z: float) -> tuple[Corner, ...]:
    return (left, bottom, z), (right, bottom, z), (right, top, z), (left, top, z)


def _body(car: Proportions) -> list[Part]:
    half, back, front = car.width / 2, -car.length / 2, car.length / 2
    profile = (
        (back + 0.10, 0.27), (back, 0.52), (back + 0.10, car.belt + 0.02), (car.cabin[1] - 0.1, car.belt + 0.03),
        (front - 0.30, car.nose), (front, car.nose - 0.22), (front - 0.06, 0.25),
    )  # fmt: skip
    centre = (0.0, 0.55, 0.0)
    parts = []
    for (z0, y0), (z1, y1) in zip(profile, profile[1:] + profile[:1], strict=True):
        quad = _quad((-half, y0, z0), (half, y0, z0), (half, y1, z1), (-half, y1, z1))
        parts.append(_face(quad, "paint", centre, "outline"))
    for side in (-1.0, 1.0):
        outline = tuple((side * half, y, z) for z, y in profile)
        parts.append(Part(outline, (side, 0.0, 0.0), "paint", "outline"))
        for low, high, material in ((0.25, 0.36, "trim"), (car.belt - 0.26, car.belt - 0.23, "shadow")):
            strip = ((low, back + 0.2), (low, front - 0.3), (high, front - 0.3), (high, back + 0.2))
            corners = tuple((side * half, y, z) for y, z in strip)
            parts.append(Part(corners, (side, 0.0, 0.0), "trim" if material == "trim" else "shadow", "inlay"))
    return parts + _front_and_back(car, half, front)


def _front_and_back(car: Proportions, half: float, end: float) -> list[Part]:
    """Lights, grille, bumpers and number plates."""
    nose, high = car.nose - 0.24, car.belt - 0.06
    rows: tuple[tuple[float, float, float, float, float, Material], ...] = (
        (1.0, -0.45, 0.45, nose - 0.16, nose + 0.02, "shadow"),
        (1.0, -half + 0.08, -half + 0.46, nose - 0.02, nose + 0.13, "head"),
        (1.0, half - 0.46, half - 0.08, nose - 0.02, nose + 0.13, "head"),
        (1.0, -0.26, 0.26, nose - 0.15, nose - 0.05, "plate"),
        (1.0, -half + 0.05, half - 0.05, 0.26, 0.33, "trim"),
        (-1.0, -half + 0.04, -half + 0.34, high - 0.24, high, "tail"),
        (-1.0, half - 0.34, half - 0.04, high - 0.24, high, "tail"),
        (-1.0, -0.27, 0.27, high - 0.27, high - 0.15, "plate"),
        (-1.0, -half + 0.05, half - 0.05, 0.28, 0.42, "trim"),
    )
    return [
        Part(_strip(left, right, bottom, top, way * (end - 0.02)), (0.0, 0.0, way), material, "inlay")
        for way, left, right, bottom, top, material in rows
    ]


def _wheels(car: Proportions) -> list[Part]:
    parts = []
    turn = np.arange(16) * (2 * np.pi / 16)
    rings: tuple[tuple[float, Material, Role], ...] = (
        (WHEEL_M + 0.05, "shadow", "outline"), (WHEEL_M, "tyre", "outline"), (0.62 * WHEEL_M, "rim", "inlay"),
        (0.18 * WHEEL_M, "shadow", "inlay"),
    )  # fmt: skip
    for side in (-1.0, 1.0):
        for z in (car.length / 2 - 0.86, -car.length / 2 + 0.82):
            for radius, material, role in rings:
                y = np.maximum(WHEEL_M + radius * np.sin(turn), 0.0 if material != "shadow" else 0.27)
                corners = tuple(
                    (side * car.width / 2, float(h), float(f)) for h, f in zip(y, z + radius * np.cos(turn), strict=True)
                )
                parts.append(Part(corners, (side, 0.0, 0.0), material, role))
    return parts


def _cabin(car: Proportions) -> list[Part]:
    rear, front, roof_rear, roof_front = car.cabin
    low, high = car.width / 2 - 0.03, car.width / 2 - car.lean
    belt, top, centre = car.belt, car.top, (0.0, (car.belt + car.top) / 2, (rear + front) / 2)
    screen = _quad((low, belt, front), (-low, belt, front), (-high, top, roof_front), (high, top, roof_front))
    back = _quad((-low, belt, rear), (low, belt, rear), (high, top, roof_rear), (-high, top, roof_rear))
    roof = _quad((-high, top, roof_front), (high, top, roof_front), (high, top, roof_rear), (-high, top, roof_rear))
    parts = [_face(roof, "paint", centre, "outline")]
    for pane in (screen, back):
        parts.append(_face(pane, "paint", centre, "outline"))
        parts.append(_face(_inset(pane, 0.07, 0.12, 0.93, 0.90), "glass", centre, "inlay"))
    for side in (-1.0, 1.0):
        flank = _quad(
            (side * low, belt, rear), (side * low, belt, front), (side * high, top, roof_front), (side * high, top, roof_rear)
        )
        parts.append(_face(flank, "paint", centre, "outline"))
        for start, end in car.windows:
            parts.append(_face(_inset(flank, start, 0.14, end, 0.88), "glass", centre, "inlay"))
    return parts


@dataclass(frozen=True)
class Shape:
    """The parts of one kind of car with all their corners in one array (N×3), part i's being `starts[i]` to `starts[i + 1]`."""

    length_m: float
    width_m: float
    height_m: float
    parts: tuple[Part, ...]
    corners: NDArray[np.float64]
    starts: tuple[int, ...]
    anchors: NDArray[np.float64]  # one corner of each part
    normals: NDArray[np.float64]  # one for each part
    coarse: NDArray[np.bool_]  # the parts that can be told from afar


def shape_of(car: Proportions) -> Shape:
    parts = parts_of(car)
    starts = (0, *np.cumsum([len(part.corners) for part in parts]).tolist())
    corners = np.array([corner for part in parts for corner in part.corners])
    anchors, normals = np.array([part.corners[0] for part in parts]), np.array([part.normal for part in parts])
    coarse = np.array([part.role == "outline" or part.material in ("glass", "tail") for part in parts])
    return Shape(car.length, car.width, car.top, parts, corners, starts, anchors, normals, coarse)


SHAPES: tuple[Shape, ...] = tuple(shape_of(car) for car in (SALOON, HATCHBACK, SUV, VAN))
