"""Outlines and run lengths, as COCO stores objects, turned into masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Mask

Filled = NDArray[np.bool_]


def fill_polygon(corners: NDArray[np.floating], height: int, width: int) -> Filled:
    """The pixels, H×W, whose centres lie inside the polygon of `corners` (N×2, x and y; pixel i spans i to i + 1).

    By the even-odd rule: along a row every edge that is crossed turns inside to outside.
    """
    filled = np.zeros((height, width), bool)
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, (width, height)).astype(int)
    start = corners.astype(np.float64)
    end = np.roll(start, -1, axis=0)
    rows = np.arange(top, bottom) + 0.5
    edge, row = np.nonzero((start[:, 1, None] <= rows) != (end[:, 1, None] <= rows))
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    x = x0 + (rows[row] - y0) * (x1 - x0) / (y1 - y0)
    # The first pixel whose centre is right of the crossing.
    first = np.clip(np.ceil(x - 0.5), left, right).astype(np.intp) - left
    turns = np.zeros((bottom - top, right - left + 1), np.int32)
    np.add.at(turns, (row, first), 1)
    filled[top:bottom, left:right] = np.cumsum(turns, axis=1)[:, :-1] % 2 == 1
    return filled


def fill_runs(counts: Sequence[int] | NDArray[np.integer], height: int, width: int) -> Filled:
    """The pixels, H×W, of run lengths: outside and inside by turns, down the columns from left to right.

    Raises ValueError when the lengths do not add up to the picture.
    """
    lengths = np.asarray(counts, np.int64)
    if lengths.sum() != height * width or (lengths < 0).any():
        raise ValueError(f"run lengths add up to {int(lengths.sum())}, the picture has {height * width} pixels")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(width, height).T


def unpack_runs(text: str) -> list[int]:
    """Run lengths of COCO's compressed form.

    Each is a number of five bits a character (from `0` up, the lowest first; bit 5: more follow; the last one's bit 4 is the
    sign), from the fourth on as the difference to the run before the last.
    """
    lengths: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("compressed run lengths are cut short")
    return lengths


@dataclass(frozen=True)
class Shape:
    """One object: its class, and polygons (float32 x, y, packed) or run lengths (uint32, packed)."""

    identity: int
    polygons: tuple[bytes, ...] = ()
    runs: bytes = b""

    def fill(self, height: int, width: int) -> Filled:
        if self.runs:
            return fill_runs(np.frombuffer(self.runs, "<u4"), height, width)
        filled = np.zeros((height, width), bool)
        for packed in self.polygons:
            filled |= fill_polygon(np.frombuffer(packed, "<f4").reshape(-1, 2), height, width)
        return filled


@dataclass(frozen=True)
class Shapes:
    """The objects of one image of `height`×`width`; where two classes overlap, which is right is unknown: it is ignored."""

    image: str
    height: int
    width: int
    shapes: tuple[Shape, ...]
    ignore_index: int

    def read(self, path: Path) -> Mask:
        """Class ids, 0 where there is no object. Raises UserError for run lengths that do not fit the image."""
        mask = np.zeros((self.height, self.width), np.uint8)
        disputed = np.zeros(mask.shape, bool)
        for shape in self.shapes:
            try:
                filled = shape.fill(self.height, self.width)
            except ValueError as error:
                raise UserError(f"{path}, image {self.image}", str(error), "unpack COCO's annotations again") from error
            disputed |= filled & (mask != 0) & (mask != shape.identity)
            mask[filled] = shape.identity
        mask[disputed] = self.ignore_index
        return mask
