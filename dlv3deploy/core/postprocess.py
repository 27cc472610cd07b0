"""From what a model returns to the mask of the frame: scores are upsampled exactly, class ids are taken from the nearest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.bilinear import Scores, axis_for
from dlv3deploy.core.images import Mask
from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.core.upsample_argmax import upsample_argmax


def mask_from_scores(scores: Scores, geometry: Geometry, output: OutputSpec) -> Mask:
    """The mask of the frame that `geometry` describes, H×W uint8, from scores or logits C×h×w."""
    rows = axis_for(geometry, 0, scores.shape[1], output)
    columns = axis_for(geometry, 1, scores.shape[2], output)
    return upsample_argmax(np.asarray(scores, np.float32), rows, columns)


def mask_from_ids(ids: NDArray[np.integer], geometry: Geometry) -> Mask:
    """The mask of the frame from class ids h×w that cover the input: the nearest one for each pixel."""
    nearest = []
    for axis in (0, 1):
        positions = (geometry.input_positions(axis) + 0.5) * (ids.shape[axis] / geometry.input[axis])
        nearest.append(np.clip(np.floor(positions).astype(np.intp), 0, ids.shape[axis] - 1))
    return ids[np.ix_(nearest[0], nearest[1])].astype(np.uint8)
