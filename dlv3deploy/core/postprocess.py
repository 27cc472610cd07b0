"""From scores to a mask: bilinear upsampling and argmax, exactly, without ever storing the upsampled scores.

A cell is the square between four neighbouring score positions. Bilinear interpolation is a convex combination of the four
corners, so a class that has the highest score at all four has it everywhere in the cell. Only the *mixed* cells, where the
corners disagree or the lead is within rounding error, are interpolated pixel by pixel. The mask equals the plain method's
(upsample all scores, then argmax) in every pixel, ties included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.images import Mask
from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.spec import OutputSpec

Scores = NDArray[np.float32]  # C×h×w

# With u = eps / 2 and M the largest magnitude, interpolating in float32 moves a class by at most 4uM: 2uM along the rows, 2uM
# between them. Two classes move 8uM against each other, and weights that do not quite sum to one shrink a lead by another
# 4uM. A lead beyond 12uM = 6 eps M cannot be lost to rounding; nor, below the normal numbers, beyond what eight products lose.
ROUNDING = 16 * float(np.finfo(np.float32).eps)
UNDERFLOW = 16 * float(np.finfo(np.float32).tiny)
PIXELS_AT_ONCE = 1 << 16  # bounds the memory of the interpolated part


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


def _interpolate(
    flat: NDArray[np.float32], rows: Axis, columns: Axis, y: NDArray[np.intp], x: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Scores at the given output pixels, N×C, from `flat` scores h×w×C: first along the rows, then between them."""
    top, bottom, left, right = rows.low[y], rows.high[y], columns.low[x], columns.high[x]
    across, down = columns.weight[x][:, None], rows.weight[y][:, None]
    one = np.float32(1)
    with np.errstate(invalid="ignore"):  # infinities give the plain method's NaN, without a word
        upper = flat[top, left] * (one - across) + flat[top, right] * across
        lower = flat[bottom, left] * (one - across) + flat[bottom, right] * across
        mixed: NDArray[np.float32] = upper * (one - down) + lower * down
    return mixed


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


def upsample_argmax(scores: Scores, rows: Axis, columns: Axis) -> Mask:
    """The class with the highest interpolated score (the lowest id among equals) of every pixel, H×W uint8."""
    flat = np.ascontiguousarray(scores.transpose(1, 2, 0))
    winner = flat.argmax(axis=2).astype(np.uint8)
    settled = _settled_cells(flat, winner)
    mask: Mask = winner[rows.low[:, None], columns.low[None, :]]
    mixed = ~settled[rows.low[:, None], columns.low[None, :]]
    pixels = np.flatnonzero(mixed)
    for start in range(0, pixels.size, PIXELS_AT_ONCE):
        part = pixels[start : start + PIXELS_AT_ONCE]
        y, x = np.divmod(part, mask.shape[1])
        mask.ravel()[part] = _interpolate(flat, rows, columns, y, x).argmax(axis=1)
    return mask


def _settled_cells(flat: NDArray[np.float32], winner: Mask) -> NDArray[np.bool_]:
    """For each cell, named by its top left corner, h×w: whether one class leads at all four corners beyond rounding."""
    height, width, classes = flat.shape
    if classes == 1:
        return np.ones((height, width), bool)
    runner_up, best = np.moveaxis(np.partition(flat, classes - 2, axis=2)[:, :, -2:], 2, 0)
    with np.errstate(invalid="ignore", over="ignore"):
        margin = ROUNDING * float(np.abs(flat).max(initial=0.0)) + UNDERFLOW
        clear = best - runner_up > margin  # False where a score is NaN
    settled: NDArray[np.bool_] = clear.copy()
    for dy, dx in ((0, 1), (1, 0), (1, 1)):
        y, x = np.minimum(np.arange(height) + dy, height - 1), np.minimum(np.arange(width) + dx, width - 1)
        settled &= clear[np.ix_(y, x)] & (winner[np.ix_(y, x)] == winner)
    return settled


def mask_from_scores(scores: Scores, geometry: Geometry, output: OutputSpec) -> Mask:
    """The mask of the frame that `geometry` describes, H×W uint8, from scores or logits C×h×w."""
    rows = axis_for(geometry, 0, scores.shape[1], output)
    columns = axis_for(geometry, 1, scores.shape[2], output)
    return upsample_argmax(np.asarray(scores, np.float32), rows, columns)


def mask_from_ids(ids: NDArray[np.integer], geometry: Geometry) -> Mask:
    """The mask of the frame from class ids h×w that cover the input: the nearest one for each pixel."""
    nearest = []
    for axis in (0, 1):
        positions = (geometry.input_positions(axis) + 0.5) * (ids.shape[axis] / geometry.input[axis])
        nearest.append(np.clip(np.floor(positions).astype(np.intp), 0, ids.shape[axis] - 1))
    return ids[np.ix_(nearest[0], nearest[1])].astype(np.uint8)
