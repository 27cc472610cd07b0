"""PASCAL VOC's devkit, with the further labels of the Semantic Boundaries Dataset (SBD) where they lie beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlv3deploy.core.classes import VOC as CLASSES
from dlv3deploy.core.classes import Classes
from dlv3deploy.core.datasets.codings import other_ids
from dlv3deploy.core.datasets.layout import Layout, Selection, Split, first_with
from dlv3deploy.core.datasets.sample import Sample, read_names, require_files
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Mask

HARD_CLASSES = ("bicycle", "chair", "diningtable", "pottedplant", "sofa")  # images with them come twice (paper, section 4.3)
LISTS = Path("ImageSets", "Segmentation")
AUGMENTED_LISTS = ("trainaug.txt", "train_aug.txt")
SBD_PLACES = ("benchmark_RELEASE/dataset", "benchmark_RELEASE", "SBD/dataset", "SBD", "sbd", "VOCaug/dataset")


@dataclass(frozen=True)
class MatlabIds:
    """A label of SBD's own release: `GTcls.Segmentation` of a MATLAB file holds class ids."""

    def read(self, path: Path) -> Mask:
        """Class ids. Raises UserError when the file is damaged or of another kind."""
        from scipy.io import loadmat

        try:
            ids = np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0])
        except FileNotFoundError as error:
            raise UserError(str(path), "does not exist", "unpack SBD's benchmark.tgz again") from error
        except Exception as error:  # what scipy raises for damaged files has no common base: zlib.error, TypeError, …
            raise UserError(str(path), f"is not a readable label ({error})", "unpack SBD's benchmark.tgz again") from error
        if ids.ndim != 2 or ids.dtype != np.uint8:
            raise UserError(str(path), f"holds {ids.dtype} {ids.shape}", "GTcls.Segmentation is a uint8 map of class ids")
        return ids


def _find(root: Path) -> Path | None:
    inside = sorted(root.glob("*/VOCdevkit/VOC2012"))
    return first_with((root, root / "VOC2012", root / "VOCdevkit" / "VOC2012", *inside), "JPEGImages", "SegmentationClass")


def _select(base: Path, split: Split, classes: Classes) -> Selection:
    """The split's list; `train` is trainaug where its labels are: VOC's and SBD's, without every image of VOC's val."""
    edition = f"VOC {base.name[3:]}" if base.name[:3] == "VOC" and base.name[3:].isdigit() else "VOC"
    if split == "train" and (augmented := _trainaug(base, classes)):
        return Selection(augmented, f"{edition} trainaug")
    return Selection(
        _listed(base, read_names(base / LISTS / f"{split}.txt"), "SegmentationClass", classes), f"{edition} {split}"
    )


def _trainaug(base: Path, classes: Classes) -> list[Sample]:
    lists = [folder / name for folder in (base / LISTS, base) for name in AUGMENTED_LISTS]
    listing = next((path for path in lists if path.is_file()), None)
    if listing and (base / "SegmentationClassAug").is_dir():
        held_out = set(read_names(base / LISTS / "val.txt"))
        names = [name for name in read_names(listing) if name not in held_out]
        return _listed(base, names, "SegmentationClassAug", classes)
    sbd = first_with(tuple(folder / place for folder in (base, *base.parents[:2]) for place in SBD_PLACES), "img", "cls")
    return _with_sbd(base, sbd, classes) if sbd else []


def _with_sbd(base: Path, sbd: Path, classes: Classes) -> list[Sample]:
    """VOC's train, and what SBD labels beyond VOC's train and val; VOC's own labels are the finer ones."""
    own = read_names(base / LISTS / "train.txt")
    taken = {*own, *read_names(base / LISTS / "val.txt")}
    further = [n for name in ("train.txt", "val.txt") for n in read_names(sbd / name) if n not in taken]
    samples = []
    for name in sorted(set(further)):
        image = base / "JPEGImages" / f"{name}.jpg"
        samples.append(Sample(image if image.is_file() else sbd / "img" / image.name, sbd / "cls" / f"{name}.mat", MatlabIds()))
    require_files(samples)
    return _listed(base, own, "SegmentationClass", classes) + samples


def _listed(base: Path, names: list[str], labels: str, classes: Classes) -> list[Sample]:
    coding = other_ids({i: i for i in range(len(CLASSES))}, (255,), classes.ignore_index)
    samples = [Sample(base / "JPEGImages" / f"{name}.jpg", base / labels / f"{name}.png", coding) for name in names]
    require_files(samples)
    return samples


LAYOUT = Layout("VOC", _find, lambda _: CLASSES, _select, ("train", "val", "trainval"))
