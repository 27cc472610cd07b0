"""Everything about a drive that time does not change: light, road, traffic's habits, and what things look like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlv3deploy.scenes.canvas import Texture
from dlv3deploy.scenes.facades import Facade, facade_of
from dlv3deploy.scenes.foliage import crown_of, hedge_of
from dlv3deploy.scenes.ground import Grain
from dlv3deploy.scenes.look import Look, look_of
from dlv3deploy.scenes.noise import Noise, tileable_noise
from dlv3deploy.scenes.road import Road, road_of
from dlv3deploy.scenes.sensor import Sensor, sensor_of
from dlv3deploy.scenes.street import CROWN_KINDS
from dlv3deploy.scenes.traffic import Eye, Traffic, eye_of, traffic_of

FACADES = 6
TILE_PX = 256


@dataclass(frozen=True)
class World:
    """`hedges` are the textures for the left and the right side; `parked` is the share of parking bays in use."""

    seed: int
    look: Look
    road: Road
    traffic: Traffic
    eye: Eye
    parked: float
    facades: tuple[Facade, ...]
    crowns: tuple[tuple[Texture, ...], ...]
    hedges: tuple[tuple[Texture, ...], tuple[Texture, ...]]
    grain: Grain
    clouds: Noise
    sensor: Sensor


def world_of(seed: int, height: int, width: int) -> World:
    """The world of a seed; the image's size decides only how finely textures are drawn."""
    rng = np.random.default_rng((seed, 0))
    look, road = look_of(rng), road_of(rng)
    traffic, eye = traffic_of(seed, rng, road), eye_of(rng, road)
    parked = float(rng.uniform(0.25, 0.75))
    grain = Grain(tileable_noise(rng, TILE_PX, 0.45), tileable_noise(rng, TILE_PX, 1.3))
    clouds = tileable_noise(rng, TILE_PX, 1.7)
    conical = float(rng.choice((0.0, 0.0, 0.9)))
    crowns = tuple(
        crown_of(rng, look, look.leaves[kind % len(look.leaves)], grain.fine, conical * (kind % 2))
        for kind in range(CROWN_KINDS)
    )
    hedges = tuple(hedge_of(look, look.leaves[1], grain.fine, (side, 0.2, -0.1)) for side in (1.0, -1.0))
    scale = min(30.0, max(7.0, eye.focal * max(height, width) / 17))
    facades = tuple(facade_of(rng, look, grain.fine, scale) for _ in range(FACADES))
    sensor = sensor_of(np.random.default_rng((seed, 2)), height, width)
    return World(seed, look, road, traffic, eye, parked, facades, crowns, (hedges[0], hedges[1]), grain, clouds, sensor)
