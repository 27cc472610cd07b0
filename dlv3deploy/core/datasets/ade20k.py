"""ADE20K's scene parsing benchmark: `images/` and `annotations/`, each with `training/` and `validation/`."""

from __future__ import annotations

from pathlib import Path

from dlv3deploy.core.classes import ADE20K, Classes, palette_for
from dlv3deploy.core.datasets.codings import other_ids
from dlv3deploy.core.datasets.layout import Layout, Selection, Split, first_with
from dlv3deploy.core.datasets.sample import Sample, require_files
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import list_images

FOLDERS = {"train": "training", "val": "validation"}


def _find(root: Path) -> Path | None:
    candidates = (root, root / "ADEChallengeData2016")
    return first_with(candidates, "images/training", "annotations/training") or first_with(
        candidates, "images/validation", "annotations/validation"
    )


def _classes(base: Path) -> Classes:
    """The classes as the release's own table names them: the first word of each."""
    table = base / "objectInfo150.txt"
    if not table.is_file():
        return ADE20K
    try:
        rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        names = {int(row[0]): row[4].split(",")[0].strip() for row in rows}
    except (OSError, ValueError, IndexError) as error:
        raise UserError(str(table), f"is no table of classes ({error})", "unpack ADE20K again") from error
    if sorted(names) != list(range(1, len(ADE20K) + 1)):
        raise UserError(str(table), f"names {len(names)} classes", f"it names those from 1 to {len(ADE20K)}; unpack it again")
    return Classes(tuple(names[i] for i in sorted(names)), palette_for(len(names)))


def _select(base: Path, split: Split, classes: Classes) -> Selection:
    """Label 0 (anything else) is ignored, labels from 1 are classes from 0."""
    coding = other_ids({value: value - 1 for value in range(1, len(ADE20K) + 1)}, (0,), classes.ignore_index)
    images, labels = (base / kind / FOLDERS[split] for kind in ("images", "annotations"))
    if not images.is_dir():
        raise UserError(str(images), "is no folder", "unpack ADEChallengeData2016.zip again")
    samples = [Sample(image, labels / f"{image.stem}.png", coding) for image in list_images(images)]
    require_files(samples)
    return Selection(samples, f"ADE20K {split}")


LAYOUT = Layout("ADE20K", _find, _classes, _select)
