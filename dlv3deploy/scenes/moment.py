"""What is where at one moment of a drive."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from dlv3deploy.scenes.camera import Camera
from dlv3deploy.scenes.street import BLOCK_M, HEDGE_M, Car, Hedge, House, Person, Tree, block_of
from dlv3deploy.scenes.sunlight import Sunlight
from dlv3deploy.scenes.world import World

VIEW_M = 160.0  # what is farther is hidden by the skyline
BEHIND_M = 6.0  # things beside the camera reach into the image, and throw shadows into it


@dataclass(frozen=True)
class Moment:
    """The camera and all that may be in its view."""

    camera: Camera
    houses: tuple[House, ...]
    hedges: tuple[Hedge, ...]
    trees: tuple[Tree, ...]
    cars: tuple[Car, ...]
    people: tuple[Person, ...]
    sunlight: Sunlight


def moment_of(world: World, time_s: float, height: int, width: int) -> Moment:
    camera = world.traffic.camera(time_s, world.eye, world.road, height, width)
    start, end = camera.z - BEHIND_M, camera.z + VIEW_M
    first, last = floor(start / BLOCK_M) - 1, floor(end / BLOCK_M) + 1
    blocks = [block_of(world.seed, n, world.road, world.facades, world.parked) for n in range(first, last + 1)]
    houses = [house for block in blocks for house in block.houses]
    hedges = [hedge for block in blocks for hedge in block.hedges]
    cars = [car for block in blocks for car in block.cars] + world.traffic.cars(time_s, world.road)

    side = 1.0 if world.look.sun[0] > 0 else -1.0
    row = [(h.start, h.end, world.facades[h.facade].height_m) for h in houses if h.side == side]
    row += [(h.start, h.end, HEDGE_M) for h in hedges if h.side == side]
    sunlight = Sunlight.over(world.look, world.road, (first * BLOCK_M, (last + 1) * BLOCK_M), row)
    return Moment(
        camera,
        tuple(h for h in houses if h.end > camera.z and h.start < end),
        tuple(h for h in hedges if h.end > camera.z and h.start < end),
        tuple(tree for block in blocks for tree in block.trees if start < tree.z < end),
        tuple(car for car in cars if start < car.z < end),
        tuple(p for p in world.traffic.people(time_s, world.road) if start < p.z < end),
        sunlight,
    )
