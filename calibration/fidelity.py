"""How far an INT8 network's scores are from those of the float network that it was made from, on given images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.collect import Runner
from dlv3deploy.calibration.pictures import spread
from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import CheckFailed

if TYPE_CHECKING:
    from onnx import ModelProto

PERFECT_DB = 200.0  # what a comparison without any error counts as


@dataclass(frozen=True)
class Fidelity:
    """`snr_db` is the power of the float scores over that of the difference, in decibels, each position's mean over classes
    taken out (it decides nothing); `agreement` the share of score positions, 0 to 1, with the same best class; `divergence` the
    mean over positions of KL(softmax of the float scores ‖ softmax of the others), in nats. Masks have the share of wrong
    positions for a divergence, outputs without classes their mean squared error.

    Methods are compared by their divergence. A ratio of powers counts an error alike where one class is far ahead, and it
    changes nothing, and where two are close; agreement counts the few positions that have tipped over.
    """

    snr_db: float
    agreement: float
    divergence: float

    def __str__(self) -> str:
        return f"divergence {self.divergence:.2g}, {self.snr_db:.1f} dB, {self.agreement:.2%} of positions agree"


class ScoreError:
    """Collects pairs of outputs, N×C×h×w each, or of masks of whole numbers.

    Class 7 is no further from class 1 than class 2 is: a position of a mask is one unit of signal, and of noise and divergence
    if it is wrong.
    """

    def __init__(self) -> None:
        self.signal = self.noise = self.divergence = 0.0
        self.same = self.positions = 0

    def collect(self, wanted: NDArray[Any], found: NDArray[Any]) -> None:
        for whose, scores in (("float", wanted), ("INT8", found)):
            if not np.isfinite(scores).all():
                raise CheckFailed(f"the {whose} model returned scores that are not finite")
        if wanted.dtype.kind == "f":
            self._collect_scores(wanted.astype(np.float64), found.astype(np.float64))
            return
        wrong = int(np.count_nonzero(wanted != found))
        self.signal += wanted.size
        self.noise += wrong
        self.divergence += wrong
        self.same += wanted.size - wrong
        self.positions += wanted.size

    def _collect_scores(self, wanted: NDArray[np.float64], found: NDArray[np.float64]) -> None:
        if wanted.ndim == 4 and wanted.shape[1] > 1:
            classes = wanted.argmax(axis=1), found.argmax(axis=1)
            wanted = wanted - wanted.mean(axis=1, keepdims=True)
            found = found - found.mean(axis=1, keepdims=True)
            self.divergence += _divergences(wanted, found)
        else:
            classes = np.rint(wanted), np.rint(found)
            self.divergence += float(np.square(wanted - found).sum())
        self.signal += float(np.square(wanted).sum())
        self.noise += float(np.square(wanted - found).sum())
        self.same += int(np.count_nonzero(classes[0] == classes[1]))
        self.positions += classes[0].size

    def compute(self) -> Fidelity:
        if not self.positions:
            raise ValueError("nothing was compared")
        return Fidelity(decibels(self.signal, self.noise), self.same / self.positions, self.divergence / self.positions)


def _divergences(wanted: NDArray[Any], found: NDArray[Any]) -> float:
    """Σ over positions of KL(softmax wanted ‖ softmax found), scores N×C×h×w, in nats."""
    log_p, log_q = _log_softmax(wanted), _log_softmax(found)
    total = float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).sum(dtype=np.float64))
    return max(0.0, total)  # of nearly equal scores rounding alone is left


def _log_softmax(scores: NDArray[Any]) -> NDArray[np.float32]:
    shifted = (scores - scores.max(axis=1, keepdims=True)).astype(np.float32)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def decibels(signal: float, noise: float) -> float:
    """10 log₁₀ of the ratio, between −PERFECT_DB and PERFECT_DB."""
    if noise <= 0:
        return PERFECT_DB
    return max(-PERFECT_DB, min(PERFECT_DB, 10 * math.log10(signal / noise))) if signal > 0 else -PERFECT_DB


class Judge:
    """Compares INT8 models with one float model, whose outputs on the images are computed once and kept."""

    def __init__(self, model: ModelProto, batches: Iterable[Batch]) -> None:
        self.output = model.graph.output[0].name
        self.batches = list(batches)
        with Runner(model, [self.output]) as runner:
            self.wanted = [runner(batch)[self.output] for batch in self.batches]

    def __call__(self, model: ModelProto) -> Fidelity:
        error = ScoreError()
        with Runner(model, [self.output], exact=True) as runner:
            for batch, wanted in zip(self.batches, self.wanted, strict=True):
                error.collect(wanted, runner(batch)[self.output])
        return error.compute()

    def on_fewer(self, images: int) -> Judge:
        """The same judge on so many of its images, spread evenly."""
        few = copy(self)
        few.batches, few.wanted = spread(self.batches, images), spread(self.wanted, images)
        return few
