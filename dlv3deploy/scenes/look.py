"""Light and air of a drive: where the sun stands, what colour everything takes from it, how far one sees."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

Bgr = NDArray[np.float32]  # three values, blue green red: a colour (0 to 255) or the factors of a light


def bgr(red: float, green: float, blue: float) -> Bgr:
    return np.array((blue, green, red), np.float32)


def mix(a: Bgr, b: Bgr, share: float) -> Bgr:
    """`share` of b, the rest of a."""
    return np.asarray(a + (b - a) * np.float32(share), np.float32)


@dataclass(frozen=True)
class Sky:
    zenith: Bgr
    horizon: Bgr
    cloud: Bgr  # the lit side of a cloud
    cover: float  # share of the sky under clouds, 0 to 1


@dataclass(frozen=True)
class Look:
    """Directions are unit vectors (right, up, ahead along the road); `haze_m` is where 1/e of the contrast is left."""

    name: str
    sun: NDArray[np.float64]
    direct: Bgr
    ambient: Bgr
    sky: Sky
    haze: Bgr
    haze_m: float
    lamps: float  # how many windows and headlights are on, 0 to 1
    leaves: tuple[Bgr, ...]

    def light(self, normal: tuple[float, float, float], sunlit: float = 1.0) -> Bgr:
        """What a face with this unit normal receives (factors for its own colour); `sunlit` is 0 in another thing's shadow."""
        return np.asarray(self.lights(np.array((normal,)), sunlit)[0], np.float32)

    def lights(self, normals: NDArray[np.float64], sunlit: float) -> NDArray[np.float32]:
        """`light` for N faces at once: N×3 normals to N×3 factors."""
        facing = np.maximum(normals @ self.sun, 0)[:, None] * sunlit
        from_sky = 0.82 + 0.18 * normals[:, 1:2]
        return np.asarray(self.ambient * from_sky + self.direct * facing, np.float32)

    def on_ground(self) -> tuple[Bgr, Bgr]:
        """The ground's light in the shade, and what full sun adds to it."""
        return self.light((0.0, 1.0, 0.0), 0.0), np.asarray(self.direct * self.sun[1], np.float32)


def _sun(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    azimuth, elevation = azimuth_deg * pi / 180, elevation_deg * pi / 180
    return np.array((cos(elevation) * sin(azimuth), sin(elevation), cos(elevation) * cos(azimuth)))


SUMMER = (bgr(84, 122, 44), bgr(64, 104, 40), bgr(104, 132, 52))
SPRING = (bgr(122, 150, 56), bgr(150, 164, 72), bgr(206, 160, 170))
AUTUMN = (bgr(188, 110, 36), bgr(170, 76, 34), bgr(190, 148, 52))


def _noon(side: float) -> Look:
    sky = Sky(bgr(62, 122, 204), bgr(186, 214, 238), bgr(250, 250, 248), 0.35)
    return Look(
        "noon", _sun(side * 62, 50), bgr(1.0, 0.95, 0.86), bgr(0.56, 0.60, 0.68), sky, bgr(196, 212, 228), 420.0, 0.0, SUMMER
    )


def _morning(side: float) -> Look:
    sky = Sky(bgr(96, 152, 214), bgr(240, 226, 206), bgr(255, 244, 230), 0.45)
    return Look(
        "morning",
        _sun(side * 100, 26),
        bgr(1.10, 0.95, 0.74),
        bgr(0.58, 0.61, 0.68),
        sky,
        bgr(228, 222, 214),
        210.0,
        0.05,
        SPRING,
    )


def _evening(side: float) -> Look:
    sky = Sky(bgr(84, 118, 180), bgr(252, 200, 142), bgr(255, 196, 148), 0.45)
    return Look(
        "evening",
        _sun(side * 24, 15),
        bgr(1.35, 0.92, 0.54),
        bgr(0.62, 0.56, 0.62),
        sky,
        bgr(244, 196, 150),
        260.0,
        0.15,
        AUTUMN,
    )


def _overcast(side: float) -> Look:
    sky = Sky(bgr(150, 160, 172), bgr(206, 212, 218), bgr(226, 229, 232), 0.95)
    return Look(
        "overcast",
        _sun(side * 80, 55),
        bgr(0.12, 0.12, 0.12),
        bgr(0.90, 0.93, 0.97),
        sky,
        bgr(204, 209, 214),
        170.0,
        0.1,
        SUMMER,
    )


def _dusk(side: float) -> Look:
    sky = Sky(bgr(34, 50, 104), bgr(228, 148, 120), bgr(196, 122, 130), 0.4)
    return Look(
        "dusk", _sun(side * 150, 12), bgr(0.22, 0.15, 0.15), bgr(0.62, 0.60, 0.76), sky, bgr(168, 128, 134), 260.0, 0.6, AUTUMN
    )


def look_of(rng: np.random.Generator) -> Look:
    """One of five times of day, with the sun on either side."""
    hours = (_noon, _noon, _noon, _morning, _morning, _evening, _evening, _overcast, _dusk)
    hour = hours[int(rng.integers(len(hours)))]
    return hour(float(rng.choice((-1.0, 1.0)) * rng.uniform(0.8, 1.2)))
