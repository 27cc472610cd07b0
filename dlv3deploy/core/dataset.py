"""Data sets in folders: `images/` and `labels/` (PNG class ids) with the same names, or `train/` and `val/` holding them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.classes import Classes, read_classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Frame, Mask, check_label, list_images, read_frame, read_label
from dlv3deploy.core.progress import tracked

FORM = "a data set has images/ and labels/ (PNG class ids, same names), or train/ and val/ that hold them"
HELD_OUT = 10  # without a val/ folder, every tenth image is kept for validation

Split = Literal["train", "val"]


@dataclass(frozen=True)
class Sample:
    image: Path
    label: Path

    def read(self) -> tuple[Frame, Mask]:
        """The frame and its label, which may differ in size and be squashed, but not turned."""
        frame, label = read_frame(self.image), read_label(self.label)
        (height, width), (label_height, label_width) = frame.shape[:2], label.shape
        if (width - height) * (label_width - label_height) < 0:
            raise UserError(
                f"{self.image} is {width}×{height}, {self.label} is {label_width}×{label_height}",
                "one lies across and the other upright, so they cannot show one view",
                "turn one of them as the other is",
            )
        return frame, label


@dataclass(frozen=True)
class FolderDataset:
    """Samples of one split, sorted by name."""

    root: Path
    split: Split
    classes: Classes
    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def check(self) -> tuple[int, ...]:
        """Read every image and label once; how many pixels each class has.

        Raises UserError naming the first sample that is damaged or holds unknown ids, and when every pixel is ignored.
        """

        def check_one(sample: Sample) -> NDArray[np.intp]:
            frame, label = sample.read()
            check_label(label, self.classes, sample.label)
            if frame.shape[:2] != label.shape:
                raise UserError(
                    f"{sample.image} is {frame.shape[1]}×{frame.shape[0]}, {sample.label} is {label.shape[1]}×{label.shape[0]}",
                    "an image and its label have one size in training",
                    "resize the label with nearest neighbours",
                )
            return np.bincount(label.ravel(), minlength=256)

        pixels = np.zeros(256, np.int64)
        with ThreadPoolExecutor(4) as pool:
            for found in tracked(pool.map(check_one, self.samples), f"checking {self.split}", len(self)):
                pixels += found
        counts = tuple(int(n) for n in pixels[: len(self.classes)])
        if not any(counts):
            raise UserError(
                f"{self.samples[0].label.parent} holds nothing but the ignored id {self.classes.ignore_index}",
                f"labels are class ids from 0 to {len(self.classes) - 1}",
                "mend the labels, or give the --ignore-index that they use",
            )
        return counts


def open_dataset(root: Path, split: Split, classes: Classes | None = None) -> FolderDataset:
    """The `train` or `val` samples below `root`.

    Classes come from the argument or from `root/classes.json`. Without a `val/` folder every tenth image belongs to `val`, of
    fewer than ten the last one; a single image is in both. Raises UserError when the folder has another form, an
    image lacks its label, or the classes are unknown.
    """
    if not root.is_dir():
        raise UserError(str(root), "is no folder", FORM)
    whole = root / "train" if (root / "train").is_dir() else root
    folder = root / split if (root / "val").is_dir() else whole
    samples = _samples(folder)
    if folder == whole and not (root / "val").is_dir():
        every = min(HELD_OUT, len(samples))
        held_out = [i % HELD_OUT == every - 1 for i in range(len(samples))]
        if len(samples) > 1:
            samples = [s for s, held in zip(samples, held_out, strict=True) if held == (split == "val")]
    if not samples:
        raise UserError(str(folder), f"holds no image for {split}", FORM)
    return FolderDataset(root, split, classes or dataset_classes(root), tuple(samples))


def dataset_classes(root: Path) -> Classes:
    """The classes that `root/classes.json` describes."""
    path = root / "classes.json"
    if not path.is_file():
        raise UserError(str(root), "has no classes.json", "add one, or name the classes: --classes voc|camvid|cityscapes|FILE")
    return read_classes(str(path))


def pairs(images: Path, labels: Path) -> list[Sample]:
    """Every image of one folder with the label of the same name in the other."""
    pngs = {label.stem: label for label in list_images(labels) if label.suffix.lower() == ".png"}
    found = [Sample(image, pngs.get(image.stem, labels / f"{image.stem}.png")) for image in list_images(images)]
    missing = [s for s in found if not s.label.is_file()]
    if missing:
        raise UserError(
            str(missing[0].image),
            f"has no label {missing[0].label} ({len(missing)} of {len(found)} images lack theirs)",
            "every image needs a PNG of class ids with the same name",
        )
    owners: dict[Path, Path] = {}
    for sample in found:
        if (owner := owners.setdefault(sample.label, sample.image)) != sample.image:
            raise UserError(
                f"{owner} and {sample.image.name}", f"share the label {sample.label}", "keep one of the two pictures"
            )
    return found


def _samples(folder: Path) -> list[Sample]:
    for name in ("images", "labels"):
        if not (folder / name).is_dir():
            raise UserError(str(folder), f"has no {name}/ folder", FORM)
    return pairs(folder / "images", folder / "labels")
