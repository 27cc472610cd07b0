"""What COCO's JSON files say: categories, panoptic segments, and the shapes of objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dlv3deploy.core.datasets.shapes import Shape, unpack_runs
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import read_json
from dlv3deploy.core.progress import say

T = TypeVar("T")

LARGE_BYTES = 50_000_000  # a file that takes seconds to read, so that a word is due


class Segments(NamedTuple):
    """A panoptic label: the stem of its PNG and of its image; category and pixels by segment number."""

    stem: str
    categories: dict[int, int]
    areas: dict[int, int]


class Objects(NamedTuple):
    """The objects of one image that belong to chosen categories, and the pixels that they cover by COCO's count."""

    file_name: str
    height: int
    width: int
    shapes: tuple[Shape, ...]
    area: float


def read_categories(path: Path) -> dict[int, str]:
    """Names by category id, in the file's order."""
    return _parse(path, _categories)


def read_segments(path: Path) -> tuple[dict[int, str], list[Segments]]:
    """Categories and labels of a panoptic file. Raises UserError when it is damaged or of another kind."""
    return _parse(path, lambda data: (_categories(data), [_segments(entry) for entry in data["annotations"]]))


def read_objects(path: Path, class_of: Mapping[str, int]) -> list[Objects]:
    """Every image of an instances file with its objects of the categories named in `class_of`, sorted by file name.

    Raises UserError when the file is damaged or of another kind.
    """

    def parse(data: Any) -> list[Objects]:
        identities = {i: class_of[name] for i, name in _categories(data).items() if name in class_of}
        shapes: dict[int, list[Shape]] = defaultdict(list)
        areas: dict[int, float] = defaultdict(float)
        for entry in data["annotations"]:
            if (identity := identities.get(entry["category_id"])) is not None:
                shapes[entry["image_id"]].append(_shape(entry["segmentation"], identity))
                areas[entry["image_id"]] += float(entry["area"])
        images = [(Path(str(i["file_name"])).name, int(i["height"]), int(i["width"]), i["id"]) for i in data["images"]]
        return [Objects(name, h, w, tuple(shapes[key]), areas[key]) for name, h, w, key in sorted(images)]

    return _parse(path, parse)


def _parse(path: Path, read: Callable[[Any], T]) -> T:
    if path.is_file() and (size := path.stat().st_size) > LARGE_BYTES:
        say(f"reading {path} ({size / 1e6:.0f} MB)")
    data = read_json(path)
    try:
        return read(data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(str(path), f"is no COCO annotation file ({reason})", "unpack the annotations again") from error


def _categories(data: Any) -> dict[int, str]:
    return {int(entry["id"]): str(entry["name"]) for entry in data["categories"]}


def _segments(entry: Any) -> Segments:
    infos = entry["segments_info"]
    return Segments(
        Path(entry["file_name"]).stem,
        {int(info["id"]): int(info["category_id"]) for info in infos},
        {int(info["id"]): int(info["area"]) for info in infos},
    )


def _shape(segmentation: Any, identity: int) -> Shape:
    """Polygons are lists of x, y, x, y …; run lengths are `{"counts": …}`, a list or a compressed text."""
    if isinstance(segmentation, list):
        corners = [np.array(polygon, "<f4") for polygon in segmentation if polygon]
        if any(c.ndim != 1 or c.size % 2 or not np.isfinite(c).all() for c in corners):
            raise ValueError("a polygon is no list of x, y pairs")
        return Shape(identity, polygons=tuple(c.tobytes() for c in corners))
    counts = segmentation["counts"]
    lengths = unpack_runs(counts) if isinstance(counts, str) else counts
    return Shape(identity, runs=np.array(lengths, "<u4").tobytes())
