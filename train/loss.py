"""What training minimises: cross entropy of the upsampled scores, and what people add to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softmax

from dlv3deploy.core.spec import Coordinates
from dlv3deploy.train.loss_choice import LossChoice
from dlv3deploy.train.network.deeplabv3 import upsample_to

FEWEST_HARD = 1 / 16  # share of the labelled pixels that mining keeps at the least, however easy they are


@dataclass(frozen=True)
class SegmentationLoss:
    """The loss of a part of a batch, such that the parts' losses add up to the batch's.

    `weights` are C float32 class weights, or None.
    """

    choice: LossChoice
    ignore_index: int
    weights: Tensor | None = None
    coordinates: Coordinates = "half-pixel"

    def __call__(self, scores: Tensor, labels: Tensor, labelled: Tensor | float) -> Tensor:
        """From scores N×C×h×w and labels N×H×W int64; `labelled` counts the labelled pixels of the whole batch.

        The mean over this part's labelled pixels, times its share of `labelled`; 0 where there is none. Plain cross entropy is
        so the batch's mean exactly; mining and Dice are computed within each part.
        """
        height, width = labels.shape[1:]
        logits = upsample_to(scores.float(), height, width, self.coordinates)  # half precision would round what is between
        counts = labels != self.ignore_index
        number = counts.sum()
        losses = cross_entropy(
            logits,
            labels,
            weight=self.weights,
            ignore_index=self.ignore_index,
            label_smoothing=self.choice.label_smoothing,
            reduction="none",
        )
        if self.choice.hard_below is None:
            mean = losses.sum() / number.clamp(min=1)
        else:
            mean = _mean_of_hard(losses, logits, labels, counts, self.choice.hard_below)
        if self.choice.dice_weight:
            mean = mean + self.choice.dice_weight * dice_loss(logits, labels, counts)
        return mean * (number / labelled)


def _mean_of_hard(losses: Tensor, logits: Tensor, labels: Tensor, counts: Tensor, hard_below: float) -> Tensor:
    """Mean loss of the labelled pixels whose class has a probability below `hard_below`, or of the hardest few."""
    with torch.no_grad():
        own = softmax(logits, 1).gather(1, torch.where(counts, labels, 0)[:, None])[:, 0]
        own = torch.where(counts, own, torch.inf)
        fewest = (counts.sum() * FEWEST_HARD).ceil().long().clamp(min=1)
        limit = own.flatten().sort().values[fewest - 1].clamp(min=hard_below)
        hard = counts & ((own < limit) | (own == limit) & (limit > hard_below))
    return (losses * hard).sum() / hard.sum().clamp(min=1)


def dice_loss(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """1 − the mean soft Dice coefficient of the classes that the labels hold (Milletari et al. 2016, with plain sums)."""
    own, probabilities = torch.where(counts, labels, 0), softmax(logits, 1)
    together = _sums_by_label(probabilities.gather(1, own[:, None])[:, 0] * counts, own, logits.shape[1])
    pixels = _sums_by_label(counts.to(logits.dtype), own, logits.shape[1])
    either = (probabilities * counts[:, None]).sum((0, 2, 3)) + pixels
    held = pixels > 0
    coefficients = 2 * together / either.clamp(min=1e-6)
    return ((1 - coefficients) * held).sum() / held.sum().clamp(min=1)


def _sums_by_label(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """C sums of N×H×W `values`; row by row first, as long sums one by one lose digits."""
    rows = values.new_zeros(*values.shape[:2], classes)
    return rows.scatter_add(2, labels, values).sum((0, 1))
