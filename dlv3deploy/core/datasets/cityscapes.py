"""Cityscapes: `leftImg8bit/` and `gtFine/`, each with `train/` and `val/` that hold a folder a city."""

from __future__ import annotations

from pathlib import Path

from dlv3deploy.core.classes import CITYSCAPES as CLASSES
from dlv3deploy.core.classes import Classes
from dlv3deploy.core.datasets.codings import other_ids
from dlv3deploy.core.datasets.layout import Layout, Selection, Split, first_with
from dlv3deploy.core.datasets.sample import Sample, require_files
from dlv3deploy.core.errors import UserError

# Label ids of the release that are classes; the rest of 0 to 33 is not scored and does not count here.
TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LABEL_IDS = range(34)


def _find(root: Path) -> Path | None:
    return first_with((root, root / "cityscapes"), "leftImg8bit")


def _select(base: Path, split: Split, classes: Classes) -> Selection:
    """Images with their `labelTrainIds` where these were made, else with the `labelIds` of the release."""
    images = base / "leftImg8bit" / split
    by_label_id = other_ids({value: i for i, value in enumerate(TRAINED)}, (*LABEL_IDS, 255), classes.ignore_index)
    by_train_id = other_ids({i: i for i in range(len(TRAINED))}, (255,), classes.ignore_index)
    made = {path.name for path in (base / "gtFine" / split).glob("*/*_labelTrainIds.png")}
    samples = []
    for image in sorted(images.glob("*/*_leftImg8bit.png")):
        stem = image.name.removesuffix("_leftImg8bit.png") + "_gtFine_"
        labels = base / "gtFine" / split / image.parent.name
        if f"{stem}labelTrainIds.png" in made:
            samples.append(Sample(image, labels / f"{stem}labelTrainIds.png", by_train_id))
        else:
            samples.append(Sample(image, labels / f"{stem}labelIds.png", by_label_id))
    if not samples:
        raise UserError(str(images), "holds no */*_leftImg8bit.png", "unpack leftImg8bit_trainvaltest.zip there")
    require_files(samples)
    return Selection(samples, f"Cityscapes {split}")


LAYOUT = Layout("Cityscapes", _find, lambda _: CLASSES, _select)
