"""Painting houses and hedges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import numpy as np

from dlv3deploy.scenes.camera import Camera, Points
from dlv3deploy.scenes.canvas import Canvas, Texture
from dlv3deploy.scenes.classes import BUILDING, TREE
from dlv3deploy.scenes.facades import DEEP_M, Facade
from dlv3deploy.scenes.look import Look, bgr
from dlv3deploy.scenes.road import Road
from dlv3deploy.scenes.street import HEDGE_M, Hedge, House

OVERHANG_M = 0.35
HEDGE_PIECE_M = 13.0


def paint_house(canvas: Canvas, camera: Camera, road: Road, look: Look, house: House, facade: Facade) -> None:
    """The end wall first, then the roof, then the front, which hides parts of both."""
    near, far = road.centre_at(house.start), road.centre_at(house.end)
    front, back = house.side * road.front_m, house.side * (road.front_m + DEEP_M)
    depth = max(1.0, camera.depth_of(near + front, house.start))
    if camera.z < house.start and house.beside_m < facade.height_m:
        end = ((near + front, house.start), (near + back, house.start))
        canvas.wall(camera, _upright(end if house.side > 0 else end[::-1], facade.height_m), facade.end, BUILDING)
        if facade.rise_m > 0:
            ridge = (near + (front + back) / 2, facade.height_m + facade.rise_m, house.start)
            gable = ((near + front, facade.height_m, house.start), ridge, (near + back, facade.height_m, house.start))
            canvas.shape(camera.outline(gable), facade.wall * look.light((0.0, 0.0, -1.0)), BUILDING, depth)
    if facade.rise_m > 0:
        _paint_roof(canvas, camera, look, house, facade, (near, far), road.front_m)
    along = ((near + front, house.start), (far + front, house.end))
    if house.side < 0:
        canvas.wall(camera, _upright(along, facade.height_m), facade.left, BUILDING)
    else:
        canvas.wall(camera, _upright(along[::-1], facade.height_m), facade.right, BUILDING)


def paint_hedge(canvas: Canvas, camera: Camera, road: Road, hedge: Hedge, texture: Sequence[Texture]) -> None:
    """In pieces of at most HEDGE_PIECE_M, one texture long; those behind the camera are left out."""
    offset, pieces = hedge.side * road.front_m, ceil((hedge.end - hedge.start) / HEDGE_PIECE_M)
    cuts = np.linspace(hedge.start, hedge.end, pieces + 1).tolist()
    places = [(road.centre_at(z) + offset, z) for z in cuts]
    for near, far in reversed(list(pairwise(places))):
        if far[1] > camera.z:
            canvas.wall(camera, _upright((near, far) if hedge.side < 0 else (far, near), HEDGE_M), texture, TREE)


def _paint_roof(
    canvas: Canvas, camera: Camera, look: Look, house: House, facade: Facade, centres: tuple[float, float], front_m: float
) -> None:
    """The slope towards the street with its courses of tiles, when the camera can see it, and a chimney."""

    def line(share: float) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """From the eaves (0) to the ridge (1)."""
        offset = house.side * (front_m - OVERHANG_M + share * (DEEP_M / 2 + OVERHANG_M))
        height = facade.height_m + share * facade.rise_m
        return (centres[0] + offset, height, house.start), (centres[1] + offset, height, house.end)

    eaves, ridge = line(0), line(1)
    slope = (DEEP_M / 2, facade.rise_m)
    steepness = (camera.y - facade.height_m) * slope[0] + abs(camera.x - eaves[0][0]) * slope[1]
    if steepness <= 0:
        return  # seen from below the plane of the roof
    length = float(np.hypot(*slope))
    light = look.light((-house.side * facade.rise_m / length, slope[0] / length, 0.0))
    depth = max(1.0, camera.depth_of(eaves[0][0], house.start))
    colour = facade.roof * light
    place = centres[0] + house.side * (front_m + DEEP_M / 2)
    stack = (house.start * 0.7 + house.end * 0.3, ridge[0][1])
    chimney = ((place - 0.4, stack[1] - 0.6, stack[0]), (place + 0.4, stack[1] - 0.6, stack[0]))
    top = ((place + 0.4, stack[1] + 0.9, stack[0]), (place - 0.4, stack[1] + 0.9, stack[0]))
    canvas.shape(camera.outline(chimney + top), bgr(120, 92, 80) * look.light((0.0, 0.0, -1.0)), BUILDING, depth)
    canvas.shape(camera.outline((*eaves, ridge[1], ridge[0])), colour, BUILDING, depth)
    for course in range(1, 7, 2):
        low, high = line(course / 7), line((course + 1) / 7)
        canvas.detail(camera.outline((*low, high[1], high[0])), colour * np.float32(0.93))


def _upright(along: tuple[tuple[float, float], tuple[float, float]], height: float) -> Points:
    """The corners of a wall over a line on the ground ((x, z) to (x, z)), as `Canvas.wall` takes them."""
    (x0, z0), (x1, z1) = along
    return np.array(((x0, 0, z0), (x1, 0, z1), (x1, height, z1), (x0, height, z0)))
