"""What reading a whole data set once tells: sizes, pixels and images of every class, and which image holds which class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import UserError

MOST_SIZES = 5  # that the lines for people list


class Finding(NamedTuple):
    """What one sample holds: its size, and pixels per label value (256 counts)."""

    height: int
    width: int
    pixels: NDArray[np.int64]


@dataclass(frozen=True)
class DataReport:
    """Counts over all samples of one split.

    By class id: `pixels`; `images_with`, the images that hold the class; `pixels_around`, the labelled pixels of those images.
    `held[i]` has bit c set where sample i holds class c. `sizes` are (height, width, images), the most frequent first.
    """

    names: tuple[str, ...]
    images: int
    sizes: tuple[tuple[int, int, int], ...]
    pixels: tuple[int, ...]
    ignored: int
    images_with: tuple[int, ...]
    pixels_around: tuple[int, ...]
    held: tuple[int, ...]

    @classmethod
    def collect(cls, findings: Iterable[Finding], names: tuple[str, ...]) -> DataReport:
        """The report of samples in their order."""
        count = len(names)
        sizes: Counter[tuple[int, int]] = Counter()
        pixels, images_with, around = (np.zeros(count, np.int64) for _ in range(3))
        everything, held = 0, []
        for height, width, found in findings:
            of_classes = found[:count]
            present = of_classes > 0
            sizes[height, width] += 1
            everything += height * width
            pixels += of_classes
            images_with += present
            around += present * of_classes.sum()
            held.append(sum(1 << int(c) for c in np.flatnonzero(present)))
        listed = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
        return cls(
            names,
            len(held),
            tuple((height, width, n) for (height, width), n in listed),
            _ints(pixels),
            everything - int(pixels.sum()),
            _ints(images_with),
            _ints(around),
            tuple(held),
        )

    @property
    def labelled(self) -> int:
        """Pixels that belong to a class."""
        return sum(self.pixels)

    @property
    def ignored_share(self) -> float:
        """Pixels that do not count, of all pixels, 0 to 1."""
        return self.ignored / max(1, self.ignored + self.labelled)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no pixel belongs to."""
        return tuple(name for name, pixels in zip(self.names, self.pixels, strict=True) if not pixels)

    def holding(self, names: Iterable[str]) -> tuple[bool, ...]:
        """For every sample whether it holds one of the named classes. Raises UserError for a name that is no class."""
        wanted = 0
        for name in names:
            if name not in self.names:
                raise UserError(f"class {name!r}", "is none of this data set's", f"its classes are {', '.join(self.names)}")
            wanted |= 1 << self.names.index(name)
        return tuple(bool(bits & wanted) for bits in self.held)

    def to_json(self) -> dict[str, Any]:
        """Counts, and shares from 0 to 1, for files and other programs; without the list of single images."""
        return {
            "images": self.images,
            "sizes": [{"height": h, "width": w, "images": n} for h, w, n in self.sizes],
            "ignored_share": self.ignored_share,
            "classes": {
                name: {"pixels": p, "share": p / max(1, self.labelled), "images": n}
                for name, p, n in zip(self.names, self.pixels, self.images_with, strict=True)
            },
            "absent": list(self.absent),
        }

    def lines(self) -> list[str]:
        """The report for people: sizes, then a line a class with its share of the labelled pixels and its images."""
        shown = [f"{n}× {w}×{h}" for h, w, n in self.sizes[:MOST_SIZES]]
        more = [f"and {len(self.sizes) - MOST_SIZES} other sizes"] if len(self.sizes) > MOST_SIZES else []
        widest = max(len("class"), *(len(name) for name in self.names))
        rows = [
            f"{name:<{widest}}  {p / max(1, self.labelled):7.2%}  {n:7,}"
            for name, p, n in zip(self.names, self.pixels, self.images_with, strict=True)
        ]
        head = (
            f"{self.images:,} images of width×height {', '.join(shown + more)}; {self.ignored_share:.1%} of the pixels ignored"
        )
        return [head, f"{'class':<{widest}}   pixels   images", *rows]


def _ints(counts: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(n) for n in counts)
