"""Bilinear upsampling and argmax, exactly, without ever storing the upsampled scores.

A cell is the square between four neighbouring score positions. Bilinear interpolation is a convex combination of the four
corners, so a class whose score is behind another's at all four is behind it everywhere in the cell, and can be left out. In
most cells one class is left: no pixel of them is looked at. In the *mixed* ones few are, mostly two, and only these are
interpolated. The mask equals the plain method's (upsample all scores in float32, then argmax) in every pixel, ties included:
leads within rounding error decide nothing here, and a pixel where they would is given to the plain method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.bilinear import Axis, Scores, interpolated_at
from dlv3deploy.core.images import Mask

# With u = eps / 2 and M the largest magnitude, interpolating in float32 moves a class by at most 4uM: 2uM along the rows, 2uM
# between them. Two classes move 8uM against each other, and weights that do not quite sum to one shrink a lead by another
# 4uM. A lead beyond 12uM = 6 eps M cannot be lost to rounding; nor, below the normal numbers, beyond what eight products lose.
ROUNDING = 16 * float(np.finfo(np.float32).eps)
UNDERFLOW = 16 * float(np.finfo(np.float32).tiny)
# In mixed cells the interpolation is a + w(b − a), thrice, which moves a class by at most 14uM more than exact arithmetic does,
# and two classes by 28uM against each other; with the plain method's 12uM that is 40uM = 20 eps M.
MORE_ROUNDING = 3
LARGEST = float(np.finfo(np.float32).max) / 8  # differences of differences stay finite below it
PIXELS_AT_ONCE = 1 << 17  # bounds the memory of the interpolated part
SMALL_CELL = 6  # pixels; below that the plain method is as fast

Ids = NDArray[np.intp]


def upsample_argmax(scores: Scores, rows: Axis, columns: Axis) -> Mask:
    """The class with the highest interpolated score (the lowest id among equals) of every pixel, H×W uint8."""
    down, across = _Runs.of(rows), _Runs.of(columns)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = max(float(scores.max(initial=0.0)), -float(scores.min(initial=0.0)))
        margin = ROUNDING * largest + UNDERFLOW
        winner, is_settled = _settled_cells(scores, down, across, margin)
        mask: Mask = np.repeat(np.repeat(winner, across.lengths, axis=1), down.lengths, axis=0)
        i, j = np.nonzero(~is_settled)
        if largest < LARGEST and down.longest * across.longest > SMALL_CELL:
            undecided = _fill(mask, scores, (down, across), (i, j), margin)
        else:
            undecided = np.flatnonzero(np.repeat(np.repeat(~is_settled, across.lengths, axis=1), down.lengths, axis=0))
    for start in range(0, undecided.size, PIXELS_AT_ONCE):
        part = undecided[start : start + PIXELS_AT_ONCE]
        y, x = np.divmod(part, mask.shape[1])
        mask.ravel()[part] = interpolated_at(scores, rows, columns, y, x).argmax(axis=0)
    return mask


@dataclass(frozen=True)
class _Runs:
    """The outputs of an axis that lie between the same two positions, run by run.

    `outputs` and `weight` are runs×`longest`: a shorter run says its last output several times.
    """

    low: Ids
    high: Ids
    lengths: Ids
    outputs: Ids
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, axis: Axis) -> _Runs:
        starts = np.flatnonzero((np.diff(axis.low, prepend=-1) != 0) | (np.diff(axis.high, prepend=-1) != 0))
        lengths = np.diff(starts, append=axis.low.size)
        outputs = starts[:, None] + np.minimum(np.arange(lengths.max(initial=0)), lengths[:, None] - 1)
        return cls(axis.low[starts], axis.high[starts], lengths, outputs, axis.weight[outputs])

    @property
    def longest(self) -> int:
        return int(self.outputs.shape[1])


def _settled_cells(scores: Scores, down: _Runs, across: _Runs, margin: float) -> tuple[Mask, NDArray[np.bool_]]:
    """For each cell the class that leads at its top left corner, and whether it leads at all four beyond `margin`."""
    best, second = scores[0].copy(), np.full(scores.shape[1:], -np.inf, np.float32)
    leading = np.zeros(best.shape, np.uint8)
    for index, values in enumerate(scores[1:], 1):
        np.maximum(second, np.minimum(best, values), out=second)
        leading[values > best] = index
        np.maximum(best, values, out=best)
    clear = best - second > margin  # False where a score is NaN
    settled = clear.copy()
    height, width = clear.shape
    for dy, dx in ((0, 1), (1, 0), (1, 1)):  # the last row and column have no other beyond them
        here, there = np.s_[: height - dy, : width - dx], np.s_[dy:, dx:]
        settled[here] &= clear[there] & (leading[there] == leading[here])
    cells = np.ix_(down.low, across.low)
    return leading[cells], settled[cells]


def _fill(mask: Mask, scores: Scores, runs: tuple[_Runs, _Runs], cells: tuple[Ids, Ids], margin: float) -> Ids:
    """Write the pixels of the mixed `cells` (of the rows' and of the columns' runs) into `mask`.

    Returns the flat indices of pixels that were too close to call.
    """
    at_once = max(1, PIXELS_AT_ONCE // (runs[0].longest * runs[1].longest))
    undecided = [np.zeros(0, np.intp)]
    for start in range(0, cells[0].size, at_once):
        i, j = (index[start : start + at_once] for index in cells)
        block = _Block.of(scores, runs, (i, j), margin)
        pixels = (runs[0].outputs[i] * mask.shape[1])[:, :, None] + runs[1].outputs[j][:, None, :]
        for members in (block.count <= 2, block.count > 2):
            chosen = np.flatnonzero(members)
            if chosen.size:
                choose = _of_two if block.count[chosen[0]] <= 2 else _of_many
                ids, lead = choose(block, chosen)
                mask.ravel()[pixels[chosen]] = ids
                undecided.append(pixels[chosen][~(lead > MORE_ROUNDING * margin)])
    return np.concatenate(undecided)


@dataclass(frozen=True)
class _Block:
    """Some cells: their corners' scores 4×C×cells (upper left, upper right, lower left, lower right), which classes some other
    class `leads` everywhere, how many are left, and the weights of their rows and columns.
    """

    corners: NDArray[np.float32]
    leads: NDArray[np.bool_]
    count: Ids
    down: NDArray[np.float32]
    across: NDArray[np.float32]

    @classmethod
    def of(cls, scores: Scores, runs: tuple[_Runs, _Runs], cells: tuple[Ids, Ids], margin: float) -> _Block:
        (down, across), (i, j) = runs, cells
        corners = np.stack([scores[:, y[i], x[j]] for y in (down.low, down.high) for x in (across.low, across.high)])
        leads = np.zeros(corners.shape[1:], bool)
        for winner in corners.argmax(axis=1):
            own = np.take_along_axis(corners, winner[None, None], axis=1)
            leads |= (own - corners > margin).all(axis=0)
        return cls(corners, leads, np.count_nonzero(~leads, axis=0), down.weight[i], across.weight[j])

    def interpolated(self, corners: NDArray[np.float32], members: Ids) -> NDArray[np.float32]:
        """Values 4×N at the corners of the cells `members`, interpolated: N×rows×columns."""
        left, right = corners[0::2, :, None], corners[1::2, :, None]
        upper, lower = left + (right - left) * self.across[members]
        values: NDArray[np.float32] = (lower - upper)[:, None, :] * self.down[members][:, :, None]
        values += upper[:, None, :]
        return values


def _of_two(block: _Block, members: Ids) -> tuple[Mask, NDArray[np.float32]]:
    """The better of two classes at each pixel, N×rows×columns, and by how much: their difference is what is interpolated."""
    leads = block.leads[:, members]
    first, last = leads.argmin(axis=0), len(leads) - 1 - leads[::-1].argmin(axis=0)
    lead = block.interpolated(block.corners[:, first, members] - block.corners[:, last, members], members)
    ids = np.where(lead > 0, first.astype(np.uint8)[:, None, None], last.astype(np.uint8)[:, None, None])
    return ids, np.abs(lead, out=lead)


def _of_many(block: _Block, members: Ids) -> tuple[Mask, NDArray[np.float32]]:
    """The best of several classes at each pixel, N×rows×columns, and by how much."""
    candidates = np.argsort(block.leads[:, members], axis=0, kind="stable")
    best = block.interpolated(block.corners[:, candidates[0], members], members)
    second = np.full_like(best, -np.inf)
    ids = np.empty(best.shape, np.uint8)
    ids[:] = candidates[0][:, None, None]
    for place in range(1, block.count[members].max()):
        active = np.flatnonzero(block.count[members] > place)
        classes, cells = candidates[place, active], members[active]
        values = block.interpolated(block.corners[:, classes, cells], cells)
        ahead = best[active]
        second[active] = np.maximum(second[active], np.minimum(ahead, values))
        ids[active] = np.where(values > ahead, classes.astype(np.uint8)[:, None, None], ids[active])
        best[active] = np.maximum(ahead, values)
    return ids, best - second
