"""A drive along a generated street: one seed is one world, and every moment of it has a frame and an exact label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import numpy as np

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.scenes.canvas import Canvas
from dlv3deploy.scenes.moment import moment_of
from dlv3deploy.scenes.painting import paint
from dlv3deploy.scenes.world import World, world_of

SMALLEST_PX, LARGEST_PX = 32, 4096
LONGEST_S = 7200.0


@dataclass(frozen=True)
class Drive:
    """A camera moving along the road. `height` and `width` in pixels, 32 to 4096; `seed` 0 or more.

    The same seed is the same street at every size. Raises UserError for other sizes and seeds.
    """

    seed: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed {self.seed}", "seeds are 0 or more", "leave the minus out")
        if not all(SMALLEST_PX <= n <= LARGEST_PX for n in (self.height, self.width)):
            raise UserError(
                f"a scene of {self.width}×{self.height}", f"sides are {SMALLEST_PX} to {LARGEST_PX} pixels", "use 512×256"
            )

    @cached_property
    def world(self) -> World:
        """What the seed stands for; made at the first use."""
        return world_of(self.seed, self.height, self.width)

    def at(self, time_s: float) -> tuple[Frame, Mask]:
        """The frame (H×W×3 BGR uint8) and its label (H×W uint8, ids of ROAD_SCENE) `time_s` seconds after the start.

        The same seed and time give the same pixels; nearby times give nearby views. Raises UserError for times below 0 or above
        LONGEST_S.
        """
        if not (isfinite(time_s) and 0 <= time_s <= LONGEST_S):
            raise UserError(f"time {time_s} s", f"a drive lasts from 0 to {LONGEST_S:.0f} s", "start another drive")
        moment = moment_of(self.world, time_s, self.height, self.width)
        canvas = Canvas.blank(self.height, self.width)
        paint(canvas, self.world, moment, time_s)
        noise = np.random.default_rng((self.seed, 3, round(time_s * 1e6)))
        return self.world.sensor.expose(canvas, self.world.look, noise), canvas.label
