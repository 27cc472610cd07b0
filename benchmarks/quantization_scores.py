"""What quantisation costs: the masks of a quantised model against the labels and against the float model's masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.images import Mask
from dlv3deploy.core.metrics import ConfusionMatrix

BOUNDARY_PIXELS = 5
RESAMPLES = 1000

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class MaskScores:
    """Fractions from 0 to 1. `boundary_miou` counts only pixels near label boundaries, `agreement` the pixels of all masks
    that have the float model's class, void included; `masks_sha256` is equal where all masks are. `drop_error` is the standard
    error of the mIoU lost against the float model: how far chance alone moves it from one choice of images to another; None
    where there is but one image."""

    miou: float
    boundary_miou: float
    per_class_iou: dict[str, float | None]
    agreement: float
    images: int
    masks_sha256: str = ""
    drop_error: float | None = None


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
        drop_error(np.array(by_image), np.array(floats_by_image), classes),
    )


def drop_error(counts: Counts, float_counts: Counts, classes: Classes) -> float | None:
    """The standard error of the mIoU of `float_counts` less that of `counts`, both images×labels×masks of the same images.

    By the bootstrap (Efron, Annals of Statistics 7, 1979): as many images are drawn with replacement, the same ones for both
    models, and the difference is computed anew, `RESAMPLES` times; the deviation of these differences is the error.
    """
    images = len(counts)
    if images < 2:
        return None
    weights = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), RESAMPLES)
    drawn, floats_drawn = (np.tensordot(weights, each, 1) for each in (counts, float_counts))
    drops = [_miou(before, classes) - _miou(after, classes) for after, before in zip(drawn, floats_drawn, strict=True)]
    return float(np.std(drops, ddof=1))


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
