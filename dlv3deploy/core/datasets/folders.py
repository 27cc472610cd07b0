"""Plain folders: `images/` and `labels/` (PNG class ids) with the same names, or `train/` and `val/` holding them."""

from __future__ import annotations

from pathlib import Path

from dlv3deploy.core.classes import Classes, read_classes
from dlv3deploy.core.datasets.layout import Selection, Split
from dlv3deploy.core.datasets.sample import Sample
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import list_images

FORM = (
    "a data set has images/ and labels/ (PNG class ids, same names), or train/ and val/ that hold them, "
    "or is VOC, Cityscapes, COCO, ADE20K or CamVid as released"
)
HELD_OUT = 10  # without a val/ folder, every tenth image is kept for validation


def select_folders(root: Path, split: Split) -> Selection:
    """The samples of one split.

    Without a `val/` folder every tenth image belongs to `val`, of fewer than ten the last one; a single image is in both.
    `trainval` is both, `test` is a folder of that name. Raises UserError when the folder has another form or an image lacks
    its label.
    """
    if split == "trainval":
        both = dict.fromkeys(select_folders(root, "train").samples + select_folders(root, "val").samples)
        return Selection(list(both), f"{root.name} {split}")
    whole = root / "train" if (root / "train").is_dir() else root
    folder = root / split if (root / "val").is_dir() or split == "test" else whole
    samples = _samples(folder)
    if folder == whole and not (root / "val").is_dir():
        every = min(HELD_OUT, len(samples))
        held_out = [i % HELD_OUT == every - 1 for i in range(len(samples))]
        if len(samples) > 1:
            samples = [s for s, held in zip(samples, held_out, strict=True) if held == (split == "val")]
    if not samples:
        raise UserError(str(folder), f"holds no image for {split}", FORM)
    return Selection(samples, f"{root.resolve().name} {split}")


def folder_classes(root: Path) -> Classes:
    """The classes that `root/classes.json` describes."""
    path = root / "classes.json"
    if not path.is_file():
        raise UserError(
            str(root),
            "has no classes.json",
            "add one, or name the classes: --classes voc|camvid|cityscapes|ade20k|cocostuff|FILE",
        )
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
