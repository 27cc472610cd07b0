"""Weights of the classes in the loss, from how often they occur."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.datasets.report import DataReport
from dlv3deploy.core.errors import UserError

WeightRule = Literal["none", "median-frequency"]


def class_weights(report: DataReport, rule: WeightRule) -> NDArray[np.float32]:
    """C float32 weights whose mean over the labelled pixels is 1, so that the learning rate keeps its meaning.

    `none` weighs all alike. `median-frequency` (Eigen & Fergus 2015; SegNet): the median of all frequencies divided by the
    class's, where a class's frequency is its share of the labelled pixels of those images that hold it; that the mean is 1
    then takes the median's place. A class that no pixel belongs to weighs 1, which no training pixel ever meets. Raises
    UserError for another rule.
    """
    if rule not in get_args(WeightRule):
        raise UserError(f"class weights {rule!r}", "are unknown", f"use one of {', '.join(get_args(WeightRule))}")
    weights = np.ones(len(report.names), np.float64)
    pixels = np.array(report.pixels, np.float64)
    present = pixels > 0
    if rule == "none" or not present.any():
        return weights.astype(np.float32)
    frequency = pixels[present] / np.array(report.pixels_around, np.float64)[present]
    weights[present] = 1 / frequency
    weights[present] *= pixels.sum() / (weights * pixels).sum()
    return weights.astype(np.float32)
