"""From a folder to a data set: which layout it has is seen from what is in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.datasets import ade20k, camvid, cityscapes, coco, voc
from dlv3deploy.core.datasets.dataset import Dataset
from dlv3deploy.core.datasets.folders import FORM, folder_classes, select_folders
from dlv3deploy.core.datasets.layout import Layout, Selection, Split
from dlv3deploy.core.errors import UserError

LAYOUTS: tuple[Layout, ...] = (
    voc.LAYOUT,
    cityscapes.LAYOUT,
    coco.LAYOUT,
    ade20k.LAYOUT,
    camvid.SEGNET,
    camvid.CAMBRIDGE_RELEASE,
)  # what is none of these is taken for plain folders

DATA_FOLDER = "DLV3DEPLOY_DATA"  # the environment variable that says where data sets lie; default: ./data


def find_root(data: str | Path) -> Path:
    """The folder that `data` names: a path, else a folder below `$DLV3DEPLOY_DATA` (default `./data`).

    Raises UserError that says where it looked.
    """
    given = Path(data)
    if given.is_dir():
        return given
    below = Path(os.environ.get(DATA_FOLDER) or "data") / given
    if below.is_dir():
        return below
    elsewhere = "" if given.is_absolute() else f", and neither is {below}"
    raise UserError(str(data), f"is no folder{elsewhere}", f"{FORM}; ${DATA_FOLDER} says where data sets lie")


def open_dataset(root: Path, split: Split, classes: Classes | None = None) -> Dataset:
    """The samples of one split below `root`, in whatever layout of `LAYOUTS` it has, otherwise in plain folders.

    Without `classes` they are the layout's own, in plain folders those of `classes.json`. Raises UserError when files are
    missing, the layout has no such split, or the classes are unknown or do not fit the layout's labels.
    """
    if split not in get_args(Split):
        raise UserError(f"split {split!r}", "is unknown", f"use one of {', '.join(get_args(Split))}")
    if not root.is_dir():
        raise UserError(str(root), "is no folder", FORM)
    found = _recognise(root)
    if found is None:
        selection = select_folders(root, split)
        chosen = classes or folder_classes(root)
    else:
        chosen = _fitting(root, found, classes)
        selection = _select(root, found, split, chosen)
    images = f"{len(selection.samples):,} image{'s' * (len(selection.samples) != 1)}"
    return Dataset(root, split, chosen, tuple(selection.samples), f"{selection.name}, {images}")


def dataset_classes(root: Path) -> Classes:
    """The classes of the layout that `root` has, or that `root/classes.json` describes."""
    found = _recognise(root)
    return found[0].classes(found[1]) if found else folder_classes(root)


def require_same_classes(root: Path, classes: Classes) -> None:
    """Raise UserError when the data set names other classes than a model's: equal ids would mean different things.

    Plain folders without `classes.json` name none.
    """
    found = _recognise(root)
    if found is None and not (root / "classes.json").is_file():
        return
    if found and classes.names in [others.names for others in found[0].also]:
        return
    named = dataset_classes(root).names
    if named != classes.names:
        own, others = (", ".join(names[:4]) + (", …" if len(names) > 4 else "") for names in (classes.names, named))
        place = f"{found[0].name} in {root}" if found else str(root / "classes.json")
        raise UserError(f"{place} ({others})", f"the model's classes are {own}", "give data with the model's classes")


def own_splits(root: Path) -> tuple[Split, ...]:
    """Which of `train` and `val` the folder itself tells apart: none in plain folders without such subfolders."""
    if _recognise(root):
        return "train", "val"
    return tuple(split for split in get_args(Split)[:2] if (root / split).is_dir())


def _recognise(root: Path) -> tuple[Layout, Path] | None:
    for layout in LAYOUTS:
        if base := layout.find(root):
            return layout, base
    return None


def _fitting(root: Path, found: tuple[Layout, Path], classes: Classes | None) -> Classes:
    layout, base = found
    if classes is not None and classes.names in [others.names for others in layout.also]:
        return classes
    own = layout.classes(base)
    if classes is not None and len(classes) != len(own):
        raise UserError(
            f"{len(classes)} classes for {root}",
            f"it is {layout.name}, whose labels have {len(own)}",
            "leave --classes out, and the data set's own are taken",
        )
    return classes or own


def _select(root: Path, found: tuple[Layout, Path], split: Split, classes: Classes) -> Selection:
    layout, base = found
    if split == "trainval" and split not in layout.splits:
        train, val = (_select(root, found, part, classes) for part in layout.splits[:2])
        return Selection(train.samples + val.samples, f"{train.name} and {val.name.removeprefix(layout.name).strip()}")
    if split not in layout.splits:
        raise UserError(f"{root}", f"{layout.name} has no {split} labels here", f"its splits are {', '.join(layout.splits)}")
    selection = layout.select(base, split, classes)
    if not selection.samples:
        raise UserError(str(root), f"holds no labelled image for {split}", f"unpack {layout.name} again")
    return selection
