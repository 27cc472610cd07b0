"""Published data sets in miniature: files as their releases have them, with a handful of pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (6, 8)  # height, width


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """A grey picture in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)
    return path


def ids(path: Path, *values: int, size: tuple[int, int] = SIZE) -> Path:
    """A label in grey whose first pixels have `values`, and all others the last of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.full(size, values[-1], np.uint8)
    label.ravel()[: len(values)] = values
    Image.fromarray(label).save(path)
    return path


def colours(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def text(path: Path, lines: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def jsonfile(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def voc(root: Path, train: tuple[str, ...] = ("a", "b"), val: tuple[str, ...] = ("c",)) -> Path:
    """A devkit in `root`/VOCdevkit/VOC2012; image `a` holds classes 0 and 1 and void, others 0 and 2."""
    base = root / "VOCdevkit" / "VOC2012"
    for name in train + val:
        picture(base / "JPEGImages" / f"{name}.jpg")
        ids(base / "SegmentationClass" / f"{name}.png", *((1, 255, 0) if name == "a" else (2, 0)))
    lists = base / "ImageSets" / "Segmentation"
    for split, names in (("train", train), ("val", val), ("trainval", train + val)):
        text(lists / f"{split}.txt", names)
    return base


def sbd(root: Path, train: tuple[str, ...], val: tuple[str, ...]) -> Path:
    """SBD's release in `root`/benchmark_RELEASE: every image holds class 5 in its first pixel and background."""
    from scipy.io import savemat

    base = root / "benchmark_RELEASE" / "dataset"
    (base / "cls").mkdir(parents=True)
    label = np.zeros(SIZE, np.uint8)
    label[0, 0] = 5
    for name in train + val:
        picture(base / "img" / f"{name}.jpg")
        savemat(base / "cls" / f"{name}.mat", {"GTcls": {"Boundaries": np.zeros(2), "Segmentation": label}})
    text(base / "train.txt", train)
    text(base / "val.txt", val)
    return base
