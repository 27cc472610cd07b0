"""What quantisation costs: the masks of a quantised model against the labels and against the float model's masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.images import Mask
from dlv3deploy.core.metrics import ConfusionMatrix

BOUNDARY_PIXELS = 5
RESAMPLES, BLOCK = 1000, 5

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class MaskScores:
    """Fractions from 0 to 1. `boundary_miou` counts only pixels near label boundaries, `agreement` the pixels of all masks
    that have the float model's class, void included; `masks_sha256` is equal where all masks are. `drops` are the mIoU lost
    against the float model on other images that chance might have chosen, the same choices for every method."""

    miou: float
    boundary_miou: float
    per_class_iou: dict[str, float | None]
    agreement: float
    images: int
    masks_sha256: str = ""
    drops: list[float] = field(default_factory=list)

    @property
    def drop_error(self) -> float | None:
        """The standard error of the mIoU lost; None where there is but one image."""
        return float(np.std(self.drops, ddof=1)) if self.drops else None

    def difference_error(self, other: MaskScores) -> float | None:
        """The standard error of the difference of two methods' mIoU on the same images."""
        return float(np.std(np.subtract(self.drops, other.drops), ddof=1)) if self.drops and other.drops else None


def near_boundary(label: Mask, pixels: int) -> NDArray[np.bool_]:
    """Where another label id lies at most `pixels` rows and `pixels` columns away, H×W.

    Void is an id like any other here: VOC draws it between an object and what is behind it. This is DeepLab's trimap
    (Chen et al., arXiv:1606.00915) with a square window; void itself is left out when scores are counted.
    """
    import cv2

    window = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return np.asarray(cv2.dilate(label, window) != cv2.erode(label, window), np.bool_)


def score_masks(masks: Sequence[Mask], labels: Iterable[Mask], floats: Sequence[Mask], classes: Classes) -> MaskScores:
    """The scores of `masks` against labels and the float model's masks of the same images, H×W each."""
    everywhere, boundary = ConfusionMatrix(classes), ConfusionMatrix(classes)
    by_image, floats_by_image = list[Counts](), list[Counts]()
    for mask, label, float_mask in zip(masks, labels, floats, strict=True):
        everywhere.collect(mask, label)
        boundary.collect(mask, np.where(near_boundary(label, BOUNDARY_PIXELS), label, np.uint8(classes.ignore_index)))
        by_image.append(_counts(mask, label, classes))
        floats_by_image.append(_counts(float_mask, label, classes))
    scores = everywhere.compute()
    pixels = hashlib.sha256()
    for mask in masks:
        pixels.update(repr(mask.shape).encode() + mask.tobytes())
    return MaskScores(
        scores.miou,
        boundary.compute().miou,
        scores.per_class_iou,
        agreement(masks, floats),
        scores.images,
        pixels.hexdigest(),
        resampled_drops(np.array(by_image), np.array(floats_by_image), classes),
    )


def resampled_drops(counts: Counts, float_counts: Counts, classes: Classes) -> list[float]:
    """The mIoU of `float_counts` less that of `counts`, both images×labels×masks of the same images, on images drawn anew.

    By the bootstrap (Efron, Annals of Statistics 7, 1979) of blocks (Künsch, 17, 1989): as many images are drawn with
    replacement, `BLOCK` at a time that follow each other, because those of a drive are much alike; `RESAMPLES` times. Empty for
    one image, of which there is no other choice.
    """
    images, random = len(counts), np.random.default_rng(0)
    if images < 2:
        return []
    starts = random.integers(0, images, (RESAMPLES, -(-images // BLOCK)))
    drawn = ((starts[:, :, None] + np.arange(BLOCK)) % images).reshape(RESAMPLES, -1)[:, :images]
    weights = np.stack([np.bincount(each, minlength=images) for each in drawn])
    after, before = (np.tensordot(weights, each, 1) for each in (counts, float_counts))
    return [_miou(b, classes) - _miou(a, classes) for a, b in zip(after, before, strict=True)]


def _counts(mask: Mask, label: Mask, classes: Classes) -> Counts:
    matrix = ConfusionMatrix(classes)
    matrix.collect(mask, label)
    return matrix.counts


def _miou(counts: Counts, classes: Classes) -> float:
    matrix = ConfusionMatrix(classes)
    matrix.counts = counts
    return matrix.compute().miou


def agreement(masks: Sequence[Mask], others: Sequence[Mask]) -> float:
    """The share of all pixels that have the same class in both."""
    same = sum(int((mask == other).sum()) for mask, other in zip(masks, others, strict=True))
    return same / sum(mask.size for mask in masks)


def worst_class_drop(scores: MaskScores, floats: MaskScores) -> tuple[str, float] | None:
    """The class that loses the most IoU against the float model, and how much (0 to 1); None when no class was seen."""
    drops = {
        name: before - (scores.per_class_iou.get(name) or 0.0)
        for name, before in floats.per_class_iou.items()
        if before is not None
    }
    worst = max(drops, key=lambda name: drops[name], default=None)
    return None if worst is None else (worst, drops[worst])
