"""How label files hold class ids: as they are, by other ids, or by colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Mask, read_colours, read_label

UNKNOWN = -1
STRAY_SHARE = 0.01  # of a colour-coded label's pixels may have colours of no class: painted labels have stray pixels


@dataclass(frozen=True)
class ClassIds:
    """Values are class ids already."""

    def read(self, path: Path) -> Mask:
        return read_label(path)


@dataclass(frozen=True)
class OtherIds:
    """`table[value]` is the class id of a value, or `UNKNOWN`; 256 entries."""

    table: tuple[int, ...]

    def read(self, path: Path) -> Mask:
        return self.translate(read_label(path), path)

    def translate(self, values: Mask, path: Path) -> Mask:
        """Class ids of `values`. Raises UserError naming `path` when one has no class."""
        ids = np.array(self.table, np.int16)[values]
        if ids.size and ids.min() < 0:
            strange = np.unique(values[ids < 0]).tolist()
            raise UserError(
                f"{path} holds label id{'s' * (len(strange) > 1)} {', '.join(map(str, strange[:8]))}",
                f"the data set's own ids are {ranges([i for i, c in enumerate(self.table) if c != UNKNOWN])}",
                "supply the label file as the data set has it",
            )
        return ids.astype(np.uint8)


def other_ids(classes: Mapping[int, int], ignored: range | tuple[int, ...], ignore_index: int) -> OtherIds:
    """Value to class id as `classes` says, `ignored` values to `ignore_index`, no others."""
    table = [UNKNOWN] * 256
    for value in ignored:
        table[value] = ignore_index
    for value, identity in classes.items():
        table[value] = identity
    return OtherIds(tuple(table))


def ranges(values: list[int]) -> str:
    """`0 to 3, 7, 255` for [0, 1, 2, 3, 7, 255]."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(f"{p[0]} to {p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


@dataclass(frozen=True)
class Colours:
    """`colours[i]` (red × 65536 + green × 256 + blue) stands for `classes[i]`; stray pixels of other colours are ignored."""

    colours: tuple[int, ...]
    classes: tuple[int, ...]
    ignore_index: int

    def read(self, path: Path) -> Mask:
        """Class ids. Raises UserError when more than `STRAY_SHARE` of the pixels have colours of no class."""
        red, green, blue = (read_colours(path)[..., channel].astype(np.int32) for channel in range(3))
        values = red << 16 | green << 8 | blue
        order, known = self._sorted
        place = np.minimum(np.searchsorted(known, values), len(known) - 1)
        found = known[place] == values
        stray = float(1 - found.mean())
        if stray > STRAY_SHARE:
            others, counts = np.unique(values[~found], return_counts=True)
            value = int(others[counts.argmax()])
            raise UserError(
                f"{path} has colour {value >> 16},{value >> 8 & 255},{value & 255}",
                f"{stray:.0%} of its pixels have colours of no class",
                "supply the label file as the data set has it",
            )
        return np.where(found, np.array(self.classes, np.uint8)[order][place], np.uint8(self.ignore_index))

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        values = np.array(self.colours, np.int32)
        order = np.argsort(values)
        return order, values[order]
