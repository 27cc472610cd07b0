"""Scores of an engine on labelled images, through the very path that `run` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlv3deploy.core.datasets import Sample
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import check_label
from dlv3deploy.core.metrics import ConfusionMatrix, SegmentationScores
from dlv3deploy.core.progress import tracked
from dlv3deploy.core.segmenter import Segmenter


def evaluate(segmenter: Segmenter, samples: Sequence[Sample]) -> SegmentationScores:
    """mIoU, per-class IoU and pixel accuracy over all samples; each mask is made at its label's size.

    Raises UserError when there is no sample, one cannot be read, a label holds ids that the model does not know, or no pixel
    of any label counts.
    """
    classes = segmenter.engine.spec.classes
    if not samples:
        raise UserError("no labelled image", "there is nothing to score", "give --data FOLDER with images/ and labels/")
    matrix = ConfusionMatrix(classes)
    for sample in tracked(samples, "evaluating", len(samples)):
        frame, label = sample.read()
        check_label(label, classes, sample.label)
        height, width = label.shape
        matrix.collect(segmenter(frame, (height, width)), label)
    if not matrix.counts.any():
        raise UserError(
            f"{len(samples)} labelled image{'s' * (len(samples) > 1)}",
            f"every pixel is ignored ({classes.ignore_index})",
            "mend the labels, or give the --ignore-index that matches them",
        )
    return matrix.compute()


@dataclass(frozen=True)
class Comparison:
    """Scores of one model in a table of several; `latency_ms` is the median of one inference."""

    name: str
    scores: SegmentationScores
    latency_ms: float
    size_mb: float
