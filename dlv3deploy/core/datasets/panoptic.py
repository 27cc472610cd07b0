"""Panoptic labels: a PNG whose colours are segment numbers; another file says which class each segment has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Frame, Mask, read_colours


def segment_numbers(colours: Frame) -> NDArray[np.uint32]:
    """H×W of RGB colours H×W×3: red + 256 × green + 65536 × blue."""
    red, green, blue = (colours[..., channel].astype(np.uint32) for channel in range(3))
    return np.asarray(red + 256 * green + 65536 * blue, np.uint32)


@dataclass(frozen=True)
class PanopticSegments:
    """What the colours of one label mean: `numbers` (little-endian uint32) and `classes` (a byte each), packed to save memory.

    Segment 0 is what nobody labelled, and ignored.
    """

    numbers: bytes
    classes: bytes
    ignore_index: int

    @classmethod
    def of(cls, segments: Mapping[int, int], ignore_index: int) -> PanopticSegments:
        """From segment numbers to class ids."""
        return cls(np.array(list(segments), "<u4").tobytes(), bytes(segments.values()), ignore_index)

    def read(self, path: Path) -> Mask:
        """Class ids. Raises UserError when the PNG has a segment that is not listed."""
        numbers = segment_numbers(read_colours(path))
        found, place = np.unique(numbers.ravel(), return_inverse=True)
        known = {0: self.ignore_index} | dict(zip(np.frombuffer(self.numbers, "<u4").tolist(), self.classes, strict=True))
        strange = [number for number in found.tolist() if number not in known]
        if strange:
            raise UserError(
                f"{path} has segment {strange[0]}",
                "the panoptic JSON file does not list it",
                "unpack both again, of one version",
            )
        return np.array([known[number] for number in found.tolist()], np.uint8)[place].reshape(numbers.shape)
