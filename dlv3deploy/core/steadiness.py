"""Steadiness: scores smoothed over the frames of a video where the picture stays the same, so that masks flicker less."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.bilinear import Scores
from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import UserError

MOVING = 12.0  # grey levels of 255; a position that changes by so much keeps nothing of the past


@dataclass(frozen=True)
class Steadiness:
    """Exponential smoothing: of the scores that are handed on, this share is the past's, 0 (none) to below 1.

    Where the picture changes the share is less: at a position whose colour, averaged over what it covers, has changed by
    `MOVING` grey levels it is 0, and in between it falls in proportion. Raises UserError for a share that is none.
    """

    past: float

    def __post_init__(self) -> None:
        if not 0 <= self.past < 1:
            raise UserError(f"steadiness {self.past:g}", "is the past's share, from 0 to below 1", "use 0.5")


class SteadyScores:
    """Call it with the scores of one frame after the other, all of one stream. Not thread-safe.

    `std` is what the pixels of a batch were divided by, in 8-bit units.
    """

    def __init__(self, steadiness: Steadiness, std: tuple[float, float, float]) -> None:
        self._past_share, self._grey = steadiness.past, float(np.mean(std))
        self._scores: Scores | None = None
        self._picture: NDArray[np.float32] | None = None

    def __call__(self, scores: Scores, batch: Batch) -> Scores:
        """The smoothed scores C×h×w of the frame that the network saw as `batch`, 1×3×H×W."""
        picture = _shrunk(batch, scores.shape[1:])
        if self._scores is None or self._picture is None or self._scores.shape != scores.shape:
            smoothed = scores
        else:
            change = np.abs(picture - self._picture).mean(axis=2) * self._grey
            share = self._past_share * np.clip(1 - change / MOVING, 0, 1)
            smoothed = (scores + share * (self._scores - scores)).astype(np.float32)
        self._scores, self._picture = smoothed, picture
        return smoothed


def _shrunk(batch: Batch, size: tuple[int, ...]) -> NDArray[np.float32]:
    """What each position of the scores covers, averaged: h×w×3."""
    import cv2

    picture = np.ascontiguousarray(batch[0].transpose(1, 2, 0))
    return np.asarray(cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.float32)
