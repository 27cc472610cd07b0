"""What stands along the road, block by block without end: a block follows from the drive's seed and its own number alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlv3deploy.scenes.facades import Facade
from dlv3deploy.scenes.road import Road

BLOCK_M = 48.0
BAY_LENGTH_M = 6.4
TREE_EVERY_M = 8.0
SLIT_M = 0.1  # narrower gaps between houses stay open
HEDGE_M = 1.75  # taller than the camera, so that nothing behind it shows
CLEAR_M = 4.5  # kept free on both sides of a zebra crossing
CAR_KINDS, CAR_COLOURS, CROWN_KINDS = 4, 9, 4


@dataclass(frozen=True)
class House:
    side: float  # −1 left, +1 right
    start: float
    end: float
    facade: int
    beside_m: float  # the height of the house that hides its nearer end wall, 0 when none does


@dataclass(frozen=True)
class Hedge:
    side: float
    start: float
    end: float


@dataclass(frozen=True)
class Tree:
    """`offset` is metres to the right of the centre line, `z` the place along the road; a larger `order` is farther back."""

    offset: float
    z: float
    height_m: float
    crown: int
    order: float


@dataclass(frozen=True)
class Car:
    offset: float
    z: float
    heading: float  # +1 drives away from the camera, −1 towards it
    kind: int
    colour: int
    lights: float  # 1 is on, 0 is off
    braking: float  # 0 to 1


@dataclass(frozen=True)
class Person:
    offset: float
    z: float
    height_m: float
    clothes: int
    step: float  # phase of the walk, in radians
    crossing: float  # 0 walks along the street, ±1 across it


@dataclass(frozen=True)
class Block:
    houses: tuple[House, ...]
    hedges: tuple[Hedge, ...]
    trees: tuple[Tree, ...]
    cars: tuple[Car, ...]


def block_of(seed: int, number: int, road: Road, facades: Sequence[Facade], parked: float) -> Block:
    """Block `number` of the street (it begins at number × BLOCK_M); `parked` is the share of parking bays in use."""
    rng = np.random.default_rng((seed, 1, number + (1 << 32)))
    start = number * BLOCK_M
    houses: list[House] = []
    hedges: list[Hedge] = []
    for side in (-1.0, 1.0):
        z, end = start, start + BLOCK_M
        if rng.random() < 0.16:  # a garden instead of houses
            hedges.append(Hedge(side, z, end))
            continue
        beside_m = 0.0
        while True:
            facade = int(rng.integers(len(facades)))
            if z + facades[facade].width_m > end:
                break
            houses.append(House(side, z, z + facades[facade].width_m, facade, beside_m))
            beside_m = facades[facade].height_m
            z += facades[facade].width_m
        if end - z > SLIT_M:
            hedges.append(Hedge(side, z, end))
    trees = _street_trees(rng, start, road) + _garden_trees(rng, hedges, road)
    return Block(tuple(houses), tuple(hedges), trees, _parked_cars(rng, start, road, parked))


def _street_trees(rng: np.random.Generator, start: float, road: Road) -> tuple[Tree, ...]:
    trees = []
    share = rng.uniform(0.1, 0.75)
    for side in (-1.0, 1.0):
        places = np.arange(start + 2, start + BLOCK_M, TREE_EVERY_M)
        draws, kinds = rng.random((2, len(places))), rng.integers(CROWN_KINDS, size=len(places))
        free = (draws[0] < share) & (np.abs(road.from_crossing(places)) > CLEAR_M)
        for i in np.flatnonzero(free):
            z = float(places[i])
            trees.append(Tree(side * (road.half_m + 0.8), z, 4.6 + 3.4 * float(draws[1, i]), int(kinds[i]), z))
    return tuple(trees)


def _garden_trees(rng: np.random.Generator, hedges: Sequence[Hedge], road: Road) -> tuple[Tree, ...]:
    """Tall trees behind the hedges."""
    trees = []
    for hedge in hedges:
        places = np.arange(hedge.start + 1.5, hedge.end - 1, 5.0)
        draws, kinds = rng.random((2, len(places))), rng.integers(CROWN_KINDS, size=len(places))
        for z, place, height, kind in zip(places.tolist(), *draws.tolist(), kinds.tolist(), strict=True):
            order = hedge.end + 1e-4 * (z - hedge.start)  # just before the hedge is painted
            trees.append(Tree(hedge.side * (road.front_m + 2 + 3 * place), z, 6 + 6 * height, kind, order))
    return tuple(trees)


def _parked_cars(rng: np.random.Generator, start: float, road: Road, parked: float) -> tuple[Car, ...]:
    cars = []
    for side in (-1.0, 1.0):
        places = np.arange(start + BAY_LENGTH_M / 2, start + BLOCK_M, BAY_LENGTH_M)
        draws, picks = rng.random((2, len(places))), rng.integers(CAR_KINDS * CAR_COLOURS, size=len(places))
        taken = (draws[0] < parked) & (np.abs(road.from_crossing(places)) > CLEAR_M + 1.5) & (road.bay_m > 2)
        for i in np.flatnonzero(taken):
            colour, kind = divmod(int(picks[i]), CAR_KINDS)
            z = float(places[i] + draws[1, i] - 0.5)
            cars.append(Car(side * (road.half_m - 1.08), z, side, kind, colour, 0.0, 0.0))
    return tuple(cars)
