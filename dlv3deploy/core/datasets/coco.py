"""COCO 2017: `train2017/`, `val2017/` and one of three kinds of labels.

`stuffthingmaps/` (COCO-stuff, 171 classes) is preferred to panoptic labels (133), those to `annotations/instances_*.json`,
which say nothing of stuff and serve for VOC's classes alone. Opened with VOC's classes, COCO's are mapped to them and only
images with enough of them are kept, for pretraining as in the paper's section 4.3.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dlv3deploy.core.class_names import COCO_STUFF_SLOTS, COCO_THING_SLOTS, FREE
from dlv3deploy.core.classes import COCO_STUFF, VOC, Classes, palette_for
from dlv3deploy.core.datasets.coco_files import read_categories, read_objects, read_segments
from dlv3deploy.core.datasets.codings import OtherIds, other_ids
from dlv3deploy.core.datasets.layout import Layout, Selection, Split
from dlv3deploy.core.datasets.panoptic import PanopticSegments
from dlv3deploy.core.datasets.sample import Sample, require_files
from dlv3deploy.core.datasets.shapes import Shapes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import list_images
from dlv3deploy.core.progress import tracked

LEAST_AREA = 1000  # pixels of VOC's classes that an image has more than to be kept (paper, section 4.3)
UNLABELLED = 255  # in the maps of COCO-stuff
RENAMED = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "dining table": "diningtable",
    "tv": "tvmonitor",
}
# VOC's class id by COCO's name; what is not here is background.
VOC_OF_COCO = {name: i for i, name in enumerate(VOC.names) if i and name not in RENAMED.values()} | {
    coco: VOC.names.index(voc) for coco, voc in RENAMED.items()
}


def _find(root: Path) -> Path | None:
    candidates = (root, root / "coco", root / "COCO")
    return next((c for c in candidates if _images(c, "train").is_dir() or _images(c, "val").is_dir()), None)


def _images(base: Path, split: str) -> Path:
    name = f"{split}2017"
    return base / "images" / name if (base / "images" / name).is_dir() else base / name


def _panoptic(base: Path, split: str) -> tuple[Path, Path] | None:
    """The JSON file and the folder of PNG files."""
    listing, name = base / "annotations" / f"panoptic_{split}2017.json", f"panoptic_{split}2017"
    maps = next((folder for folder in (base / "annotations" / name, base / name) if folder.is_dir()), None)
    return (listing, maps) if maps and listing.is_file() else None


def _classes(base: Path) -> Classes:
    if (base / "stuffthingmaps").is_dir():
        return COCO_STUFF
    found = [pair for split in ("val", "train") if (pair := _panoptic(base, split))]  # the file of val is the smaller one
    if found:
        names = tuple(read_categories(found[0][0]).values())
        return Classes(names, palette_for(len(names)))
    raise UserError(
        str(base),
        "has no labels of all COCO classes (stuffthingmaps/ or panoptic ones)",
        "add them, or give --classes voc, for which annotations/instances_train2017.json is enough",
    )


def _select(base: Path, split: Split, classes: Classes) -> Selection:
    for_voc = classes.names == VOC.names
    if not _images(base, split).is_dir():
        raise UserError(str(_images(base, split)), "is no folder", f"unpack {split}2017.zip there")
    if (base / "stuffthingmaps").is_dir():
        samples, kind = _from_maps(base, split, classes, for_voc), "COCO-stuff"
    elif found := _panoptic(base, split):
        samples, kind = _from_segments(*found, _images(base, split), classes, for_voc), "COCO panoptic"
    elif for_voc:
        samples, kind = _from_objects(base, split, classes), "COCO"
    else:
        raise UserError(str(base), f"has no labels for {split}2017", "unpack stuffthingmaps or the panoptic annotations there")
    require_files(samples)
    return Selection(samples, f"{kind} {split}2017" + (" in VOC's classes" if for_voc else ""))


def _from_maps(base: Path, split: str, classes: Classes, for_voc: bool) -> list[Sample]:
    """COCO-stuff: values are category ids − 1, 255 is what nobody labelled."""
    slots = COCO_THING_SLOTS + COCO_STUFF_SLOTS
    used = [value for value, name in enumerate(slots) if name != FREE]
    table = {v: VOC_OF_COCO.get(slots[v], 0) if for_voc else i for i, v in enumerate(used)}
    coding = other_ids(table, (UNLABELLED,), classes.ignore_index)
    maps = base / "stuffthingmaps" / f"{split}2017"
    samples = [Sample(image, maps / f"{image.stem}.png", coding) for image in list_images(_images(base, split))]
    if not for_voc:
        return samples
    require_files(samples)
    instances = _instances(base, split)
    if instances.is_file():
        kept = {o.file_name for o in read_objects(instances, VOC_OF_COCO) if o.area > LEAST_AREA}
        return [sample for sample in samples if sample.image.name in kept]
    return _large_enough(samples, coding, split)


def _large_enough(samples: list[Sample], coding: OtherIds, split: str) -> list[Sample]:
    """Those whose label has more than `LEAST_AREA` pixels of a class that is not background; every label is read for it."""

    def is_large(sample: Sample) -> bool:
        ids = np.bincount(coding.read(sample.label).ravel(), minlength=256)
        return int(ids[1 : len(VOC)].sum()) > LEAST_AREA

    with ThreadPoolExecutor(4) as pool:
        large = tracked(pool.map(is_large, samples), f"measuring {split}2017", len(samples))
        return [sample for sample, kept in zip(samples, large, strict=True) if kept]


def _from_segments(listing: Path, maps: Path, images: Path, classes: Classes, for_voc: bool) -> list[Sample]:
    categories, labels = read_segments(listing)
    class_of = {key: VOC_OF_COCO.get(name, 0) if for_voc else i for i, (key, name) in enumerate(categories.items())}
    samples = []
    for label in sorted(labels, key=lambda label: label.stem):
        if strange := [c for c in label.categories.values() if c not in class_of]:
            raise UserError(
                f"{listing}, image {label.stem}",
                f"has a segment of category {strange[0]}, which is not listed",
                "unpack it again",
            )
        ids = {number: class_of[category] for number, category in label.categories.items()}
        if for_voc and sum(label.areas[number] for number, identity in ids.items() if identity) <= LEAST_AREA:
            continue
        samples.append(
            Sample(images / f"{label.stem}.jpg", maps / f"{label.stem}.png", PanopticSegments.of(ids, classes.ignore_index))
        )
    return samples


def _from_objects(base: Path, split: str, classes: Classes) -> list[Sample]:
    """VOC's classes drawn from outlines; the rest of the image is background."""
    listing, images = _instances(base, split), _images(base, split)
    return [
        Sample(images / o.file_name, listing, Shapes(o.file_name, o.height, o.width, o.shapes, classes.ignore_index))
        for o in read_objects(listing, VOC_OF_COCO)
        if o.area > LEAST_AREA
    ]


def _instances(base: Path, split: str) -> Path:
    return base / "annotations" / f"instances_{split}2017.json"


LAYOUT = Layout("COCO", _find, _classes, _select, also=(VOC,))
