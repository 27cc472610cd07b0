"""What is read before the first step: every image and label, so that a bad file ends the run now and not in its third epoch."""

from __future__ import annotations

from pathlib import Path

from dlv3deploy.core.datasets import DataReport, Dataset, samples_picture
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import write_json
from dlv3deploy.core.images import write_frame
from dlv3deploy.core.progress import say

MOST_CLASSES = 30  # whose shares are said one by one; the file has them all


def check_data(train_set: Dataset, val_set: Dataset, folder: Path) -> DataReport:
    """Say what training will see, and leave `data.json` and `samples.png` (pictures with their labels) in `folder`.

    Files that did not change since an earlier run in `folder` are not read again. Raises UserError naming the first file that
    is damaged or does not fit, and for a set too small to hold anything out.
    """
    shared = _images(train_set) & _images(val_set)
    if shared and train_set.split == "train":
        raise _on_both_sides(train_set, sorted(shared))
    say(f"training on {len(train_set)} images, validating on {len(val_set)} others" if not shared else _overlap(train_set))
    report = train_set.check(folder / "checked")
    val_report = val_set.check(folder / "checked")
    for line in report.lines() if len(report.names) <= MOST_CLASSES else report.lines()[:1]:
        say(line)
    if report.absent:
        say(f"no training label holds {', '.join(report.absent)}; the model cannot learn what it never sees")
    write_json(folder / "data.json", {"train": report.to_json(), "val": val_report.to_json()})
    write_frame(folder / "samples.png", samples_picture(train_set))
    return report


def _images(data: Dataset) -> set[Path]:
    return {sample.image.resolve() for sample in data.samples}


def _on_both_sides(train_set: Dataset, shared: list[Path]) -> UserError:
    if len(train_set) == len(shared) == 1:
        rule = "holds a single image, which cannot train and validate at once"
        return UserError(str(train_set.root), rule, "add more images")
    others = f", as {'is 1 other' if len(shared) == 2 else f'are {len(shared) - 1} others'}" if len(shared) > 1 else ""
    rule = f"is among the images to train on and those to validate on{others}"
    return UserError(str(shared[0]), rule, "take it out of one of the two")


def _overlap(train_set: Dataset) -> str:
    return f"training on {len(train_set)} images, those of the validation among them: its figures say nothing about new images"
