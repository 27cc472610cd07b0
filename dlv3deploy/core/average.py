"""From the scores of several views to one mask: the mean of their class probabilities, band by band.

The scores of every view are interpolated to the frame's size, become probabilities by softmax, and are averaged: first over
the views that show a pixel in the same picture (overlapping windows), then over the pictures. The mask is the class with the
highest mean. Only a band of rows of the frame is held at full size at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.bilinear import Axis, Scores, axis_for, interpolated
from dlv3deploy.core.images import Mask
from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.spec import OutputSpec

VALUES_AT_ONCE = 1 << 18  # float32 values of one band of the frame; about six such arrays are held together
EDGE = 1e-6  # input pixels; a pixel whose centre lies on the edge of a window is shown by it, whatever rounding did


@dataclass(frozen=True)
class ScoredView:
    """Scores C×h×w of one view of the frame; those with the same `picture` are windows of one."""

    scores: Scores
    geometry: Geometry
    picture: int


@dataclass(frozen=True)
class _Part:
    """A view's scores, how the frame reads from them, and the rows and columns of the frame that the view shows."""

    scores: Scores
    axes: tuple[Axis, Axis]
    shown: tuple[slice, slice]


def mean_mask(views: Sequence[ScoredView], output: OutputSpec) -> Mask:
    """The class with the highest mean probability (the lowest id among equals) of every pixel of the frame, H×W uint8.

    `views` are in the order of their pictures, all of the same frame and number of classes; the windows of a picture show
    all of it.
    """
    height, width = views[0].geometry.frame
    pictures = [[_part(view, output) for view in group] for _, group in groupby(views, lambda view: view.picture)]
    classes = views[0].scores.shape[0]
    rows_at_once = max(1, VALUES_AT_ONCE // (classes * width))
    mask = np.empty((height, width), np.uint8)
    for first in range(0, height, rows_at_once):
        band = slice(first, min(first + rows_at_once, height))
        total = np.zeros((classes, band.stop - first, width), np.float32)
        for parts in pictures:
            _add_picture(total, parts, band)
        mask[band] = total.argmax(axis=0)
    return mask


def _part(view: ScoredView, output: OutputSpec) -> _Part:
    _, height, width = view.scores.shape
    axes = axis_for(view.geometry, 0, height, output), axis_for(view.geometry, 1, width, output)
    return _Part(np.asarray(view.scores, np.float32), axes, (_shown(view.geometry, 0), _shown(view.geometry, 1)))


def _shown(geometry: Geometry, axis: int) -> slice:
    """The frame's rows (axis 0) or columns (axis 1) whose centres lie in the input."""
    positions = geometry.input_positions(axis) + 0.5
    inside = np.flatnonzero((positions >= -EDGE) & (positions <= geometry.input[axis] + EDGE))
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


def _add_picture(total: NDArray[np.float32], parts: Sequence[_Part], band: slice) -> None:
    """Add the picture's probabilities at the frame's rows in `band` to `total`, C×rows×width."""
    if len(parts) == 1:
        total += _probabilities(parts[0], band, slice(None))
        return
    summed, windows = np.zeros_like(total), np.zeros(total.shape[1:], np.float32)
    for part in parts:
        (first, last), columns = (max(band.start, part.shown[0].start), min(band.stop, part.shown[0].stop)), part.shown[1]
        if first < last and columns.start < columns.stop:
            rows = slice(first - band.start, last - band.start)
            summed[:, rows, columns] += _probabilities(part, slice(first, last), columns)
            windows[rows, columns] += 1
    summed /= windows
    total += summed


def _probabilities(part: _Part, rows: slice, columns: slice) -> NDArray[np.float32]:
    """Softmax over the classes of the interpolated scores, C×rows×columns of the frame."""
    down, across = (axis.part(where) for axis, where in zip(part.axes, (rows, columns), strict=True))
    values = interpolated(part.scores, down, across)
    with np.errstate(over="ignore"):  # a score that is farther behind than float32 reaches has probability 0
        values -= values.max(axis=0)
    np.exp(values, out=values)
    values /= values.sum(axis=0)
    return values
