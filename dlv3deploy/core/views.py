"""Views: what an engine is shown of one frame under a strategy, each a batch of the size that the engine takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.engine import Batch
from dlv3deploy.core.images import Frame
from dlv3deploy.core.preprocess import Geometry, preprocess
from dlv3deploy.core.spec import InputSpec
from dlv3deploy.core.strategy import Strategy, scaled_side, window_starts

FixedSize = tuple[int | None, int | None]  # height, width; None where the engine takes any


@dataclass(frozen=True)
class View:
    """A 1×3×height×width batch, and where the frame's pixels lie in it; or the frame itself, for an engine that prepares it.

    Views with the same `picture` are parts of one.
    """

    batch: NDArray[Any]
    geometry: Geometry
    picture: int


def views_of(frame: Frame, spec: InputSpec, strategy: Strategy, fixed: FixedSize, output_stride: int) -> Iterator[View]:
    """One picture for each scale, and its mirror image where the strategy says so, made when they are asked for.

    A picture that is larger than the `fixed` size of the engine becomes windows of that size; what a smaller one leaves free
    holds the mean colour.
    """
    picture = 0
    for scale in strategy.scales:
        height, width = (scaled_side(side, scale, output_stride) for side in (spec.height, spec.width))
        batch, geometry = preprocess(frame, replace(spec, height=height, width=width))
        size = fixed[0] or height, fixed[1] or width
        for shown, place in _with_mirrored(batch, geometry) if strategy.flip else [(batch, geometry)]:
            for top in window_starts(height, size[0]):
                for left in window_starts(width, size[1]):
                    yield View(_window(shown, top, left, size), place.window(top, left, size), picture)
            picture += 1


def _with_mirrored(batch: Batch, geometry: Geometry) -> list[tuple[Batch, Geometry]]:
    return [(batch, geometry), (np.ascontiguousarray(batch[..., ::-1]), geometry.mirrored())]


def _window(batch: Batch, top: int, left: int, size: tuple[int, int]) -> Batch:
    """The part of the batch that begins at (top, left); zeros, which is the mean colour, beyond its border."""
    if batch.shape[2:] == size:
        return batch
    window = np.zeros((*batch.shape[:2], *size), np.float32)
    part = batch[:, :, max(0, top) : top + size[0], max(0, left) : left + size[1]]
    y, x = max(0, -top), max(0, -left)
    window[:, :, y : y + part.shape[2], x : x + part.shape[3]] = part
    return window
