"""Painting one moment: sky, ground, skyline, then everything in the street from far to near."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from dlv3deploy.scenes.canvas import Canvas
from dlv3deploy.scenes.car_shapes import SHAPES
from dlv3deploy.scenes.cars import axes_of, paint_car
from dlv3deploy.scenes.ground import paint_ground
from dlv3deploy.scenes.houses import paint_hedge, paint_house
from dlv3deploy.scenes.moment import Moment
from dlv3deploy.scenes.people import paint_person
from dlv3deploy.scenes.shadows import Blob, disc, paint_shadows
from dlv3deploy.scenes.sky import paint_sky
from dlv3deploy.scenes.skyline import paint_skyline
from dlv3deploy.scenes.street import Car, Person, Tree
from dlv3deploy.scenes.trees import CROWN_SHARE, WIDE_SHARE, paint_tree
from dlv3deploy.scenes.world import World

SHADOWS_WITHIN_M = 60.0

Thing = TypeVar("Thing", Tree, Car, Person)

Paint = tuple[float, Callable[[], None]]  # how far along the road a thing reaches, and what paints it


def paint(canvas: Canvas, world: World, moment: Moment, time_s: float) -> None:
    camera, look = moment.camera, world.look
    paint_sky(canvas, camera, look, world.clouds, time_s)
    shadows = paint_shadows(camera, look, _shadows(world, moment))
    paint_ground(canvas, camera, world.road, look, moment.sunlight, world.grain, shadows)
    paint_skyline(canvas, camera, look, world.grain.coarse)
    paints = [*_rows(canvas, world, moment), *_things(canvas, world, moment)]
    for _, paint_one in sorted(paints, key=lambda each: -each[0]):
        paint_one()


def _rows(canvas: Canvas, world: World, moment: Moment) -> Iterator[Paint]:
    """Houses and hedges; each counts from its far end, so that what stands before it comes later."""
    camera, road = moment.camera, world.road
    for house in moment.houses:
        yield house.end, partial(paint_house, canvas, camera, road, world.look, house, world.facades[house.facade])
    for hedge in moment.hedges:
        texture = world.hedges[0 if hedge.side < 0 else 1]
        yield hedge.end, partial(paint_hedge, canvas, camera, road, hedge, texture)


def _things(canvas: Canvas, world: World, moment: Moment) -> Iterator[Paint]:
    camera, road, look = moment.camera, world.road, world.look
    for tree, sun in _sunlit(moment, moment.trees):
        yield tree.order, partial(paint_tree, canvas, camera, road, look, tree, world.crowns[tree.crown], sun)
    for car, sun in _sunlit(moment, moment.cars):
        yield car.z + SHAPES[car.kind].length_m / 2, partial(paint_car, canvas, camera, road, look, car, sun)
    for person, sun in _sunlit(moment, moment.people):
        yield person.z, partial(paint_person, canvas, camera, road, look, person, sun)


def _sunlit(moment: Moment, things: Sequence[Thing]) -> Iterator[tuple[Thing, float]]:
    """Each thing with the share of the sun that reaches the ground below it."""
    offsets, places = [thing.offset for thing in things], [thing.z for thing in things]
    return zip(things, moment.sunlight.reaching(offsets, places).tolist(), strict=True)


def _shadows(world: World, moment: Moment) -> Iterator[Blob]:
    """Of everything that stands on the street near enough to tell."""
    road, limit = world.road, moment.camera.z + SHADOWS_WITHIN_M
    for person in moment.people:
        if person.z < limit:
            x = road.centre_at(person.z) + person.offset
            yield Blob(disc(x, person.z, 0.2), 0.0, person.height_m, 0.5)
    for tree in moment.trees:
        if tree.z < limit and abs(tree.offset) < road.front_m:
            x, girth = road.centre_at(tree.z) + tree.offset, tree.height_m * WIDE_SHARE * 0.44
            yield Blob(disc(x, tree.z, 0.15), 0.0, tree.height_m * 0.4, 0.6)
            yield Blob(disc(x, tree.z, girth), tree.height_m * (1 - CROWN_SHARE * 0.8), tree.height_m * 0.85, 0.8)
    for car in moment.cars:
        if car.z < limit:
            shape = SHAPES[car.kind]
            half, end = shape.width_m / 2 + 0.05, shape.length_m / 2 + 0.05
            corners = np.array(((-half, 0, -end), (half, 0, -end), (half, 0, end), (-half, 0, end))) @ axes_of(road, car)
            origin = np.array((road.centre_at(car.z) + car.offset, car.z))
            yield Blob(corners[:, [0, 2]] + origin, 0.0, 0.8 * shape.height_m, 0.92)
