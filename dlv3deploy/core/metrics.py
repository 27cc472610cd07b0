"""Segmentation scores from a confusion matrix, which is collected image by image and computed at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.images import Mask


@dataclass(frozen=True)
class SegmentationScores:
    """Fractions from 0 to 1. A class that neither labels nor masks hold has no IoU (None) and is left out of `miou`."""

    miou: float
    pixel_accuracy: float
    per_class_iou: dict[str, float | None]
    images: int


class ConfusionMatrix:
    """Counts of pixels by label (row) and mask (column); memory does not grow with the number of images."""

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.counts: NDArray[np.int64] = np.zeros((len(classes), len(classes)), np.int64)
        self.images = 0

    def collect(self, mask: Mask, label: Mask) -> None:
        """Add one image: class ids H×W each; pixels whose label is `ignore_index` (or no class) do not count."""
        n = len(self.classes)
        scored = (label < n) & (label != self.classes.ignore_index)
        pairs = label[scored].astype(np.intp) * 256 + mask[scored]
        table = np.bincount(pairs, minlength=n * 256).reshape(n, 256)
        if table[:, n:].any():
            raise ValueError(f"a mask holds ids of {n} or more, the model has {n} classes")
        self.counts += table[:, :n]
        self.images += 1

    def compute(self) -> SegmentationScores:
        """IoU = true positives / (true positives + false positives + false negatives), per class over all images at once."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        seen = union > 0
        iou = np.divide(hits, union, out=np.zeros_like(hits), where=seen)
        total = int(self.counts.sum())
        return SegmentationScores(
            miou=float(iou[seen].mean()) if seen.any() else 0.0,
            pixel_accuracy=float(hits.sum() / total) if total else 0.0,
            per_class_iou={
                name: float(value) if known else None for name, value, known in zip(self.classes.names, iou, seen, strict=True)
            },
            images=self.images,
        )
