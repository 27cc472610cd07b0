"""Bilinear interpolation of a map of scores at a frame's pixels, by the rule that a model's output states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.spec import OutputSpec

Scores = NDArray[np.float32]  # C×h×w


@dataclass(frozen=True)
class Axis:
    """Linear interpolation along one axis: output i is values[low[i]] · (1 − weight[i]) + values[high[i]] · weight[i]."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight: NDArray[np.float32]

    def part(self, outputs: slice) -> Axis:
        return Axis(self.low[outputs], self.high[outputs], self.weight[outputs])


def axis_for(geometry: Geometry, axis: int, scores_size: int, output: OutputSpec) -> Axis:
    """How the frame's rows (axis 0) or columns (axis 1) read from `scores_size` score positions, by the output's rule."""
    positions = geometry.input_positions(axis)
    size = geometry.input[axis]
    if output.coordinates == "align-corners":
        positions *= (scores_size - 1) / (size - 1) if size > 1 else 0.0
    else:
        positions = (positions + 0.5) * (scores_size / size) - 0.5
    positions = np.clip(positions + output.shift, 0.0, scores_size - 1)
    low = np.floor(positions).astype(np.intp)
    high = np.minimum(low + 1, scores_size - 1)
    return Axis(low, high, (positions - low).astype(np.float32))


def interpolated(scores: Scores, rows: Axis, columns: Axis) -> Scores:
    """All scores at the outputs of both axes, C×rows×columns: first between rows, then along them."""
    one = np.float32(1)
    tall = scores[:, rows.low] * (one - rows.weight)[:, None]
    tall += scores[:, rows.high] * rows.weight[:, None]
    values = np.take(tall, columns.low, axis=2)
    values *= one - columns.weight
    right = np.take(tall, columns.high, axis=2)
    right *= columns.weight
    values += right
    return values


def interpolated_at(scores: Scores, rows: Axis, columns: Axis, y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.float32]:
    """Scores at single output pixels, C×N: first along the rows, then between them."""
    top, bottom, left, right = rows.low[y], rows.high[y], columns.low[x], columns.high[x]
    across, down, one = columns.weight[x], rows.weight[y], np.float32(1)
    with np.errstate(invalid="ignore"):  # infinities give the plain method's NaN, without a word
        upper = scores[:, top, left] * (one - across) + scores[:, top, right] * across
        lower = scores[:, bottom, left] * (one - across) + scores[:, bottom, right] * across
        mixed: NDArray[np.float32] = upper * (one - down) + lower * down
    return mixed
