"""The classes that a model tells apart: names, colours and the label id that is left out of training and scoring."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlv3deploy.core.class_names import ADE20K_NAMES, COCO_STUFF_NAMES
from dlv3deploy.core.errors import UserError

Colour = tuple[int, int, int]

MASK_LIMIT = 255  # masks are uint8 class ids, and one value stays free for the ignored label


@dataclass(frozen=True)
class Classes:
    """`names[i]` and `palette[i]` (red, green, blue; 0 to 255) describe class id i; `ignore_index` is no class."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ignore_index: int = 255

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MASK_LIMIT:
            raise UserError(f"{len(self.names)} classes", f"a model has 1 to {MASK_LIMIT}", "name them in classes.json")
        if len(self.palette) != len(self.names):
            raise UserError(
                f"{len(self.names)} class names and {len(self.palette)} colours",
                "every class has one colour",
                "leave the palette out to have one made",
            )
        if repeated := [name for i, name in enumerate(self.names) if name in self.names[:i]]:
            raise UserError(f"two classes named {repeated[0]!r}", "every class has a name of its own", "rename one")
        if not 0 <= self.ignore_index <= 255:
            raise UserError(f"ignore index {self.ignore_index}", "label files hold ids from 0 to 255", "use 255")
        if self.ignore_index < len(self.names):
            raise UserError(
                f"ignore index {self.ignore_index}",
                f"ids 0 to {len(self.names) - 1} are classes",
                "use an id that is not a class, such as 255",
            )

    def __len__(self) -> int:
        return len(self.names)

    def to_json(self) -> dict[str, Any]:
        return {"names": list(self.names), "palette": [list(c) for c in self.palette], "ignore_index": self.ignore_index}

    @classmethod
    def from_json(cls, data: Any, where: str) -> Classes:
        """The inverse of `to_json`; the palette and the ignore index may be left out. Raises UserError naming `where`."""
        form = 'expected {"names": ["road", …], "palette": [[128, 64, 128], …], "ignore_index": 255}'
        strange = sorted(set(data) - {"names", "palette", "ignore_index"}) if isinstance(data, dict) else []
        if strange:
            raise UserError(where, f"has an unknown key {strange[0]!r}", form)
        try:
            names = tuple(_name(name) for name in _list(data["names"]))
            palette = tuple(_colour(c) for c in _list(data["palette"])) if "palette" in data else palette_for(len(names))
            ignore_index = _whole(data.get("ignore_index", 255))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(where, f"is no description of classes ({error})", form) from error
        return cls(names, palette, ignore_index)


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r} is no list")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{value!r} is no name")
    value.encode("utf-8")  # raises for half a surrogate pair, which no file could hold
    return value


def _whole(value: Any) -> int:
    """An int, or its digits as the command line has them; never a truth value, a fraction or an infinity."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{value!r} is no whole number")
    return int(value)


def _colour(value: Any) -> Colour:
    red, green, blue = (_whole(v) for v in _list(value))
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise ValueError(f"colour {list(value)} is outside 0 to 255")
    return red, green, blue


def palette_for(count: int) -> tuple[Colour, ...]:
    """`count` distinct colours by PASCAL VOC's rule: the bits of the id, three at a time, fill each channel from the top."""
    colours = []
    for identity in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= ((identity >> (3 * bit + channel)) & 1) << (7 - bit)
        colours.append((channels[0], channels[1], channels[2]))
    return tuple(colours)


def _named(text: str) -> tuple[str, ...]:
    return tuple(text.split())


VOC = Classes(
    _named(
        "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
        "pottedplant sheep sofa train tvmonitor"
    ),
    palette_for(21),
    ignore_index=255,
)
CAMVID = Classes(
    _named("Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignore_index=11,
)
CITYSCAPES = Classes(
    (
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    (
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
    ignore_index=255,
)

ADE20K = Classes(ADE20K_NAMES, palette_for(len(ADE20K_NAMES)))
COCO_STUFF = Classes(COCO_STUFF_NAMES, palette_for(len(COCO_STUFF_NAMES)))

KNOWN: dict[str, Classes] = {
    "voc": VOC,
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
    "ade20k": ADE20K,
    "cocostuff": COCO_STUFF,
}


def read_classes(name_or_file: str) -> Classes:
    """The classes that `--classes` names: one of `KNOWN`, or a JSON file as `Classes.from_json` reads it."""
    if name_or_file in KNOWN:
        return KNOWN[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        raise UserError(
            f"classes {name_or_file!r}",
            "is neither a known set nor a file",
            f"use {', '.join(KNOWN)} or the path of a classes.json",
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(str(path), f"is not readable JSON ({error})", "see the README for the form") from error
    return Classes.from_json(data, str(path))


def anonymous_classes(count: int) -> Classes:
    """Classes of a model that does not say what they are: `class 0`, `class 1`, …"""
    return Classes(tuple(f"class {i}" for i in range(count)), palette_for(count))
