"""What moves: the camera's own car, the cars around it, and people, each a smooth function of time."""

from __future__ import annotations

from dataclasses import dataclass
from math import atan, floor, pi, sin

import numpy as np

from dlv3deploy.scenes.camera import Camera
from dlv3deploy.scenes.road import Road
from dlv3deploy.scenes.street import CAR_COLOURS, CAR_KINDS, Car, Person

ONCOMING_LOOP_M = 190.0  # an oncoming car that was passed comes again, as another one, this far ahead
WALKING_LOOP_M = 88.0
BEHIND_M = 8.0
STEP_M = 0.72
CLOTHES = 24


@dataclass(frozen=True)
class Eye:
    """How the camera is mounted; fractions of the image's height and longer side."""

    height_m: float
    horizon: float
    focal: float
    offset_m: float  # from the centre line


@dataclass(frozen=True)
class Traffic:
    """The speeds are in m/s; `gap_m` is the distance to the car ahead, 0 when there is none."""

    seed: int
    speed: float
    sway: float
    oncoming_speed: float
    oncoming: int  # cars on one loop
    gap_m: float
    walkers: int

    def travelled(self, time_s: float) -> float:
        """Metres along the road; slows and speeds up a little, never turns back."""
        return self.speed * (time_s + 0.35 * sin(0.5 * time_s + self.sway))

    def camera(self, time_s: float, eye: Eye, road: Road, height: int, width: int) -> Camera:
        z = self.travelled(time_s)
        offset = eye.offset_m + 0.12 * sin(0.35 * time_s + self.sway)
        focal = eye.focal * max(height, width)
        bounce = 0.0012 * (sin(5.1 * time_s + self.sway) + 0.6 * sin(8.3 * time_s)) * focal
        return Camera(
            height,
            width,
            focal,
            eye.horizon * height + bounce,
            road.centre_at(z) + offset,
            eye.height_m,
            z,
            atan(road.slope(z + 10)) * 0.9,
        )

    def cars(self, time_s: float, road: Road) -> list[Car]:
        here = self.travelled(time_s)
        lane = road.lane_m / 2
        cars = []
        for i in range(self.oncoming):
            place = (i + _fraction(self.seed, i)) * ONCOMING_LOOP_M / self.oncoming * 0.9
            ahead, lap = _loop(place - self.oncoming_speed * time_s - here, ONCOMING_LOOP_M)
            kind, colour = _pick(self.seed, i, lap, CAR_KINDS), _pick(self.seed, i + 50, lap, CAR_COLOURS)
            cars.append(Car(-lane, here + ahead, -1.0, kind, colour, 1.0, 0.0))
        if self.gap_m > 0:
            gap = self.gap_m * (1 + 0.22 * sin(0.4 * time_s + 2 * self.sway))
            kind, colour = _pick(self.seed, 90, 0, CAR_KINDS), _pick(self.seed, 91, 0, CAR_COLOURS)
            braking = max(0.0, sin(0.4 * time_s + 2 * self.sway + 2))
            cars.append(Car(lane, here + gap, 1.0, kind, colour, 1.0, braking))
        return cars

    def people(self, time_s: float, road: Road) -> list[Person]:
        here = self.travelled(time_s)
        people = []
        for i in range(self.walkers):
            side = -1.0 if i % 2 else 1.0
            pace = (1.0 + 0.5 * _fraction(self.seed, i + 200)) * (1 if _fraction(self.seed, i + 300) < 0.5 else -1)
            place = (i + 0.7 * _fraction(self.seed, i + 400)) * WALKING_LOOP_M / self.walkers
            ahead, lap = _loop(place + pace * time_s - here, WALKING_LOOP_M)
            lateral = road.half_m + 1.4 + (road.pavement_m - 2.0) * _fraction(self.seed, i + 500 + 7 * lap)
            clothes = _pick(self.seed, i + 600, lap, CLOTHES)
            step = (time_s * abs(pace) / STEP_M + _fraction(self.seed, i)) * pi
            people.append(Person(side * lateral, here + ahead, _stature(self.seed, i, lap), clothes, step, 0.0))
        if self.gap_m == 0 and self.oncoming == 0:
            people += self._crossing(here, road)
        return people

    def _crossing(self, here: float, road: Road) -> list[Person]:
        """People on the zebra crossings ahead: they are across before the camera is there."""
        people = []
        for z in road.crossings(here + 8, here + 80):
            number = round((z - road.first_crossing_m) / road.crossing_every_m)
            for i in range(1 + _pick(self.seed, 700, number, 3)):
                way = 1.0 if _fraction(self.seed, 710 + i + 5 * number) < 0.5 else -1.0
                start = 56 + 12 * _fraction(self.seed, 720 + i + 5 * number)
                gone = (start - (z - here)) / 44 * (2 * road.half_m + 2) - 1
                lateral = min(max(gone, -1.0), 2 * road.half_m + 1) - road.half_m
                shift = (i - 0.5) * 0.9
                clothes = _pick(self.seed, 730 + i, number, CLOTHES)
                stature = _stature(self.seed, 740 + i, number)
                people.append(Person(way * lateral, z + shift, stature, clothes, gone / STEP_M * pi, way))
        return people


def traffic_of(seed: int, rng: np.random.Generator, road: Road) -> Traffic:
    """Streets without parked cars are busy, others may be quiet; on quiet ones people use the zebra crossings."""
    busy = bool(rng.random() < 0.5) or road.bay_m < 2
    return Traffic(
        seed,
        speed=float(rng.uniform(6.5, 10.5)),
        sway=float(rng.uniform(0, 2 * pi)),
        oncoming_speed=float(rng.uniform(7, 12)),
        oncoming=int(rng.integers(3, 8)) if busy else 0,
        gap_m=float(rng.uniform(11, 24)) if busy and rng.random() < 0.6 else 0.0,
        walkers=int(rng.integers(10, 19)),
    )


def eye_of(rng: np.random.Generator, road: Road) -> Eye:
    return Eye(float(rng.uniform(1.25, 1.6)), float(rng.uniform(0.45, 0.56)), float(rng.uniform(0.66, 0.92)), road.lane_m / 2)


def _loop(ahead: float, length: float) -> tuple[float, int]:
    """`ahead` brought into the loop from BEHIND_M behind the camera on, and the number of the lap."""
    lap = floor((ahead + BEHIND_M) / length)
    return ahead - lap * length, lap


def _fraction(seed: int, key: int) -> float:
    """A fixed random number between 0 and 1 for a key (splitmix64)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + key * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & 0xFFFFFFFFFFFFFFFF
    return float((mixed ^ (mixed >> 31)) / 2**64)


def _pick(seed: int, key: int, lap: int, count: int) -> int:
    return int(_fraction(seed, key + 1009 * lap) * count)


def _stature(seed: int, key: int, lap: int) -> float:
    """Metres; one in six is a child."""
    tall = _fraction(seed, key + 800 + 1013 * lap)
    return 1.15 + tall if tall < 0.16 else 1.52 + 0.4 * tall
