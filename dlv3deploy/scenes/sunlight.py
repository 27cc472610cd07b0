"""Which spots on the ground the sun reaches past the rows of buildings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlv3deploy.scenes.look import Look
from dlv3deploy.scenes.road import Road

STEP_M = 0.5
PENUMBRA_M = 0.5  # how far in height the edge of a shadow is soft


@dataclass(frozen=True)
class Sunlight:
    """`tops[i]` is the height of the row on the sun's side at z = `start` + i × STEP_M."""

    look: Look
    road: Road
    start: float
    tops: NDArray[np.float32]

    @classmethod
    def over(cls, look: Look, road: Road, span: tuple[float, float], row: Iterable[tuple[float, float, float]]) -> Sunlight:
        """`row` holds (start, end, height) of what stands along the street on the side where the sun is."""
        tops = np.zeros(int((span[1] - span[0]) / STEP_M) + 1, np.float32)
        for begin, end, top in row:
            low, high = (int(max(0.0, (z - span[0]) / STEP_M)) for z in (begin, end))
            tops[low:high] = np.maximum(tops[low:high], top)
        return cls(look, road, span[0], tops)

    def reaching(self, offset: ArrayLike, z: ArrayLike) -> NDArray[np.float32]:
        """1 where the sun shines, 0 in shadow, at z and `offset` metres right of the centre line (arrays of one shape)."""
        sun = self.look.sun
        across = np.float32(max(abs(sun[0]), 1e-3))
        side = np.float32(1.0 if sun[0] > 0 else -1.0)
        steps = np.maximum(np.float32(self.road.front_m) - side * np.asarray(offset, np.float32), 0) / across
        place = (np.asarray(z, np.float32) + steps * np.float32(sun[2]) - np.float32(self.start)) * np.float32(1 / STEP_M)
        top = self.tops[np.clip(place, 0, len(self.tops) - 1).astype(np.int32)]
        ray = steps * np.float32(sun[1])
        return np.asarray(np.clip((ray - top) / PENUMBRA_M + 0.5, 0, 1), np.float32)
