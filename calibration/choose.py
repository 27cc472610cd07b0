"""Which pictures of a folder INT8 is calibrated on.

INT8's ranges must hold what the network will ever see, so a few pictures stand for thousands. How well a choice C stands for
the candidates X is its covering radius

    radius(C) = max over x in X of min over c in C of |f(x) − f(c)|

the distance of the picture that is worst represented. `spread` makes it small by farthest-point sampling: from the most
ordinary picture on, always take the one that is farthest from all taken. That is at most twice the smallest radius which
`count` pictures can have, and no polynomial method does better unless P = NP (Gonzalez 1985, "Clustering to minimize the
maximum intercluster distance", Theoretical Computer Science 38). Equal distances in time or chance spend their pictures where
the camera spent its time, and miss the tunnel of four seconds.

The distance adds three squares, all in units of ΔE*ab, the distance in CIE L*a*b* colours, of a picture shrunk to 128×128:

- layout: the mean ΔE² over 8×8 cells: where is what;
- colours: for each of L, a, b the squared 2-Wasserstein distance of its two distributions, wherever the pixels lie. In one
  dimension that is the mean squared difference of the quantile functions (Peyré & Cuturi 2019, "Computational Optimal
  Transport", remark 2.30), here of the means of 16 equal shares;
- gradients: the same for the sizes of L's steps to the next column and to the next row: contrast, texture, blur.

Before any rule chooses, pictures are left out that teach nothing: *blank* ones, no cell of whose 16×16 thumbnail differs
visibly from the picture's mean colour, and *duplicates*, no cell of which differs by more than `SAME_PICTURE` from a picture
that is kept. Asking for the largest difference, not the mean one, keeps a still camera's picture with one person far away.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Frame, read_frame
from dlv3deploy.core.progress import tracked

Rule = Literal["spread", "random", "even"]
Floats = NDArray[np.float32]

SIDE = 128  # pixels of the shrunk picture that everything is measured on
THUMBNAIL, LAYOUT = 16, 8  # cells along each side
SHARES = 16  # of a distribution
FEATURES = 3 * LAYOUT * LAYOUT + 3 * SHARES + 2 * SHARES  # layout, colours, gradients
MOST_EXAMINED = 2000  # pictures that are read: a quarter of a minute of 720×960 JPEG on one slow core

# Both in ΔE*ab. A blank picture differs nowhere visibly from one colour: 2.3 is just noticeable (Mahy, Van Eycken and
# Oosterlinck 1994), and near black that is 8 of 255 grey levels. The plainest real picture met, an empty road from above, has
# 9.0; a 480×640 frame under a lens cap, with noise of 6 grey levels, 0.3. The same picture as JPEG of quality 40, at half its
# size, 3% brighter or with noise of 8 grey levels differs by at most 4.1 in its worst cell; CamVid's pictures, a second apart,
# by 8.2 and more.
VISIBLE = 2.3
SAME_PICTURE = 5.0

# A step to the next pixel is small beside a difference between pictures: five times as large, gradients spread as widely as
# colours do (CamVid 13.6 and 14.8, VOC 18.3 and 20.0).
GRADIENT_WEIGHT = 5.0


@dataclass(frozen=True)
class Chosen:
    """What `choose` took, and what it left out and why. Pictures in none of these were candidates that the rule passed over."""

    images: tuple[Path, ...]  # sorted
    blank: tuple[Path, ...]
    duplicates: tuple[tuple[Path, Path], ...]  # what was left out, and the picture that it repeats
    not_examined: int  # pictures beyond the limit on how many are read


@dataclass(frozen=True)
class Look:
    """What is remembered of a picture, in ΔE*ab."""

    thumbnail: Floats  # THUMBNAIL×THUMBNAIL×3: L (0 to 100), a, b
    features: Floats  # FEATURES numbers whose Euclidean distance is the module's

    def is_blank(self) -> bool:
        return _largest_difference(self.thumbnail, self.thumbnail.mean((0, 1))) <= VISIBLE


def choose(images: Sequence[Path], count: int, rule: Rule, seed: int = 0) -> Chosen:
    """`count` of `images`, or all that have content and repeat no other when these are fewer.

    `spread` covers what there is to see, `even` takes equal distances over the sorted list, `random` draws with `seed`. Neither
    the order of `images` nor a path that occurs twice matters. Memory does not hold the pictures. Of more than MOST_EXAMINED
    pictures (or `count`, when it is more) only that many are read, at equal distances over the sorted list.

    Raises UserError when a picture that is read is unreadable, when there is none or none with content, and for a bad `count`
    or `rule`.
    """
    if rule not in get_args(Rule):
        raise UserError(f"calibration images by {rule!r}", "is no rule to choose by", f"give {', '.join(get_args(Rule))}")
    if count < 1:
        raise UserError(f"{count} calibration images", "INT8 needs at least one", "ask for about 100")
    listed = sorted(set(images))
    if not listed:
        raise UserError("no calibration image", "INT8 needs the ranges that real images cause", "give --images FOLDER")
    examined = [listed[i] for i in evenly(len(listed), max(MOST_EXAMINED, count))]
    candidates, features, blank, duplicates = _with_content(examined)
    if not candidates:
        raise UserError(
            f"{len(blank)} calibration image{'s' * (len(blank) > 1)}, {blank[0]} the first",
            "every one is of a single colour, as under a lens cap, and causes no ranges",
            "give pictures of what the camera will see",
        )
    if rule == "spread":
        picks = farthest_first(features, count)
    elif rule == "even":
        picks = evenly(len(candidates), count)
    else:
        picks = random.Random(seed).sample(range(len(candidates)), min(count, len(candidates)))
    taken = tuple(candidates[i] for i in sorted(picks))
    return Chosen(taken, tuple(blank), tuple(duplicates), len(listed) - len(examined))


def evenly(length: int, count: int) -> list[int]:
    """`count` indices at equal distances over a list, both ends among them; all of them when there are no more."""
    if length <= count:
        return list(range(length))
    return [round(i * (length - 1) / max(1, count - 1)) for i in range(count)]


def farthest_first(points: Floats, count: int) -> list[int]:
    """Indices of `count` rows of `points` (n×d), or of all when n is smaller, in the order of Gonzalez's algorithm.

    The first is the point nearest to the mean, every further one the farthest from all before it; the lower index where two are
    equally far. The choice of fewer is the beginning of the choice of more.
    """
    apart = ((points - points.mean(0)) ** 2).sum(1)
    picks = [int(apart.argmin())]
    nearest = np.full(len(points), np.inf)  # squared distance of every point to what is taken; −1 once it is taken itself
    while len(picks) < min(count, len(points)):
        np.minimum(nearest, ((points - points[picks[-1]]) ** 2).sum(1), out=nearest)
        nearest[picks[-1]] = -1
        picks.append(int(nearest.argmax()))
    return picks


def look(frame: Frame) -> Look:
    """Thumbnail and features of an H×W×3 BGR uint8 frame of any size."""
    import cv2

    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_BGR2LAB), np.float32)
    steps = [np.abs(np.diff(lab[:, :, 0], axis=axis)) for axis in (1, 0)]
    layout = _cells(lab, LAYOUT).ravel() / np.float32(LAYOUT)  # scaled so that a Euclidean distance is a mean over cells
    colours = [_quantiles(lab[:, :, channel]) for channel in range(3)]
    gradients = [_quantiles(step) * np.float32(GRADIENT_WEIGHT) for step in steps]
    return Look(_cells(lab, THUMBNAIL), np.concatenate([layout, *colours, *gradients]))


def _with_content(paths: Sequence[Path]) -> tuple[list[Path], Floats, list[Path], list[tuple[Path, Path]]]:
    """The candidates and their features (n×d); the blank pictures; the duplicates and what each of them repeats.

    A picture repeats one that was kept before it, never one that was left out: a scene that changes slowly stays in, sampled.
    """
    kept: list[Path] = []
    blank: list[Path] = []
    duplicates: list[tuple[Path, Path]] = []
    thumbnails: Floats = np.empty((len(paths), THUMBNAIL, THUMBNAIL, 3), np.float32)
    features: Floats = np.empty((len(paths), FEATURES), np.float32)
    for path in tracked(paths, "choosing images", len(paths)):
        seen = look(read_frame(path))
        if seen.is_blank():
            blank.append(path)
            continue
        like = _first_same(seen, thumbnails[: len(kept)], features[: len(kept)])
        if like is not None:
            duplicates.append((path, kept[like]))
            continue
        thumbnails[len(kept)], features[len(kept)] = seen.thumbnail, seen.features
        kept.append(path)
    return kept, features[: len(kept)], blank, duplicates


def _first_same(seen: Look, thumbnails: Floats, features: Floats) -> int | None:
    """The index of the first picture that `seen` repeats.

    The layout's distance is a mean over the thumbnail's cells, so it is at most the largest difference of one cell: where it is
    larger already, the thumbnails need no look.
    """
    layout = LAYOUT * LAYOUT * 3
    apart = np.sqrt(((features[:, :layout] - seen.features[:layout]) ** 2).sum(1))
    for index in np.flatnonzero(apart <= SAME_PICTURE):
        if _largest_difference(thumbnails[index], seen.thumbnail) <= SAME_PICTURE:
            return int(index)
    return None


def _largest_difference(one: Floats, other: Floats) -> float:
    """The largest ΔE*ab of any cell."""
    return float(np.sqrt(((one - other) ** 2).sum(-1)).max())


def _cells(lab: Floats, side: int) -> Floats:
    """The mean colours of side×side equal cells: side×side×3."""
    size = SIDE // side
    means: Floats = lab.reshape(side, size, side, size, 3).mean((1, 3))
    return means


def _quantiles(values: Floats) -> Floats:
    """The means of SHARES equal shares of the sorted values, scaled so that a Euclidean distance is a Wasserstein distance."""
    shares: Floats = np.sort(values, axis=None).reshape(SHARES, -1).mean(1)
    return shares / np.float32(np.sqrt(SHARES))
