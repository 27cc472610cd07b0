"""The road: a gently bending strip of lanes, parking bays, markings, zebra crossings and pavements."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import ArrayLike, NDArray

Waves = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Road:
    """Metres throughout. The centre line is x = centre(z); one lane and one row of parking bays on each side of it."""

    waves: Waves  # amplitude, wavelength, phase (radians)
    lane_m: float
    bay_m: float
    pavement_m: float
    dash_m: float  # length of a stroke of the centre line
    gap_m: float
    crossing_every_m: float
    first_crossing_m: float
    slab_m: float

    @property
    def half_m(self) -> float:
        """From the centre line to the kerb."""
        return self.lane_m + self.bay_m

    @property
    def front_m(self) -> float:
        """From the centre line to the fronts of the buildings."""
        return self.half_m + self.pavement_m

    def centre(self, z: ArrayLike) -> NDArray[np.float32]:
        """Where the centre line runs at z, in metres to the right of the axis."""
        along = np.asarray(z, np.float32)
        total = np.zeros_like(along)
        for amplitude, wavelength, phase in self.waves:
            total += np.float32(amplitude) * np.sin(along * np.float32(2 * pi / wavelength) + np.float32(phase))
        return total

    def centre_at(self, z: float) -> float:
        """`centre` for one place."""
        return sum(a * sin(z * 2 * pi / w + p) for a, w, p in self.waves)

    def slope(self, z: float) -> float:
        """Metres to the right for each metre ahead."""
        return sum(a * 2 * pi / w * cos(z * 2 * pi / w + p) for a, w, p in self.waves)

    def from_crossing(self, z: ArrayLike) -> NDArray[np.float32]:
        """Metres from the middle of the nearest zebra crossing; negative before it."""
        every = np.float32(self.crossing_every_m)
        along = np.asarray(z, np.float32) - np.float32(self.first_crossing_m)
        return np.asarray(along - every * np.rint(along / every), np.float32)

    def crossings(self, start: float, end: float) -> list[float]:
        """The middles of the zebra crossings between two places."""
        first = int(np.ceil((start - self.first_crossing_m) / self.crossing_every_m))
        last = int(np.floor((end - self.first_crossing_m) / self.crossing_every_m))
        return [self.first_crossing_m + i * self.crossing_every_m for i in range(first, last + 1)]


def road_of(rng: np.random.Generator) -> Road:
    bend = float(rng.uniform(4, 14))
    waves = (
        (bend, float(rng.uniform(420, 600)), float(rng.uniform(0, 2 * pi))),
        (float(rng.uniform(0.5, 3.0)), float(rng.uniform(190, 260)), float(rng.uniform(0, 2 * pi))),
    )
    return Road(
        waves,
        lane_m=float(rng.uniform(3.1, 3.6)),
        bay_m=float(rng.choice((0.9, 2.2, 2.2, 2.2))),
        pavement_m=float(rng.uniform(3.2, 5.5)),
        dash_m=3.0,
        gap_m=float(rng.choice((0.0, 3.0, 4.5))),
        crossing_every_m=float(rng.uniform(45, 80)),
        first_crossing_m=float(rng.uniform(12, 40)),
        slab_m=float(rng.uniform(0.5, 0.9)),
    )
