"""CamVid as SegNet's authors pass it on (11 classes by id), and as Cambridge does (32 by colour)."""

from __future__ import annotations

from pathlib import Path

from dlv3deploy.core.classes import CAMVID, Classes
from dlv3deploy.core.datasets.codings import Colours, other_ids
from dlv3deploy.core.datasets.layout import Layout, Selection, Split, first_with
from dlv3deploy.core.datasets.sample import Sample, read_names, require_files
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import list_images

VOID = 11
SPLITS: tuple[Split, ...] = ("train", "val", "test")

# The 32 colours (red, green, blue) of the release and the class that SegNet's authors count each to; the rest is void.
CAMBRIDGE: dict[str, tuple[tuple[int, int, int], ...]] = {
    "Sky": ((128, 128, 128),),
    # bridge, building, wall, tunnel, archway
    "Building": ((0, 128, 64), (128, 0, 0), (64, 192, 0), (64, 0, 64), (192, 0, 128)),
    # pole, traffic cone
    "Pole": ((192, 192, 128), (0, 0, 64)),
    # road, and markings for driving and for other ends
    "Road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),
    # pavement, parking block, road shoulder
    "Pavement": ((0, 0, 192), (64, 192, 128), (128, 128, 192)),
    "Tree": ((128, 128, 0), (192, 192, 0)),
    # sign, other text, traffic light
    "SignSymbol": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),
    "Fence": ((64, 64, 128),),
    # car, pickup, truck or bus, train, anything else that moves
    "Car": ((64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)),
    # pedestrian, child, cart or pram, animal
    "Pedestrian": ((64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)),
    # bicycle, motorcycle
    "Bicyclist": ((0, 128, 192), (192, 0, 192)),
}
BLACK = (0, 0, 0)


def _find_segnet(root: Path) -> Path | None:
    return first_with((root, root / "CamVid"), "train", "trainannot")


def _select_segnet(base: Path, split: Split, classes: Classes) -> Selection:
    """The images that `train.txt` names, or all of `train/` where there is no list."""
    coding = other_ids({i: i for i in range(VOID)}, (VOID,), classes.ignore_index)
    images, labels, names = base / split, base / f"{split}annot", base / f"{split}.txt"
    if not images.is_dir():
        raise UserError(str(images), "is no folder", f"CamVid has {split}/ and {split}annot/ there")
    pictures = {image.stem: image for image in list_images(images)}
    listed = read_names(names) if names.is_file() else list(pictures)
    found = [pictures.get(name, images / f"{name}.png") for name in listed]
    samples = [Sample(image, labels / f"{image.stem}.png", coding) for image in found]
    require_files(samples)
    return Selection(samples, f"CamVid {split}")


def _find_cambridge(root: Path) -> Path | None:
    return first_with((root, root / "CamVid"), "701_StillsRaw_full", "LabeledApproved_full")


def split_of(stem: str) -> Split:
    """SegNet's split of a frame of the release, by its sequence and number: 367 train, 101 val and 233 test."""
    sequence, _, number = stem.partition("_")
    frame = int(number.strip("f") or 0) if number.strip("f").isdigit() else 0
    if sequence == "0016E5":
        return "val" if 7959 <= frame <= 8159 else "train"
    return "test" if sequence == "Seq05VD" or (sequence == "0001TP" and frame > 8520) else "train"


def _select_cambridge(base: Path, split: Split, classes: Classes) -> Selection:
    table = {colour: CAMVID.names.index(name) for name, colours in CAMBRIDGE.items() for colour in colours}
    table[BLACK] = classes.ignore_index
    coding = Colours(tuple(r << 16 | g << 8 | b for r, g, b in table), tuple(table.values()), classes.ignore_index)
    images, labels = base / "701_StillsRaw_full", base / "LabeledApproved_full"
    samples = [
        Sample(image, labels / f"{image.stem}_L.png", coding) for image in list_images(images) if split_of(image.stem) == split
    ]
    require_files(samples)
    return Selection(samples, f"CamVid {split}")


SEGNET = Layout("CamVid", _find_segnet, lambda _: CAMVID, _select_segnet, SPLITS)
CAMBRIDGE_RELEASE = Layout("CamVid", _find_cambridge, lambda _: CAMVID, _select_cambridge, SPLITS)
