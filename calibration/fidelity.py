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
NEGLIGIBLE = 1e-5  # divergence of one image, below which methods are hardly told apart


@dataclass(frozen=True)
class Fidelity:
    """`snr_db` is the power of the float scores over that of the difference, in decibels, each position's mean over classes
    taken out (it decides nothing); `agreement` the share of score positions, 0 to 1, with the same best class; `divergence` of
    an image its mean over positions of KL(softmax of the float scores ‖ softmax of the others), in nats, and of several the
    geometric mean. Masks diverge by the share of wrong positions, outputs without classes by the error's share of power.

    Methods are compared by their divergence. A ratio of powers counts an error alike where one class is far ahead, and it
    changes nothing, and where two are close; agreement counts the few positions that have tipped over. Methods differ by
    factors, and so do images: an arithmetic mean is that of the image or two that diverge most, and which those are is chance.
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
        self.signal = self.noise = 0.0
        self.same = self.positions = 0
        self.divergences = list[float]()  # of each image

    def collect(self, wanted: NDArray[Any], found: NDArray[Any]) -> None:
        for whose, scores in (("float", wanted), ("INT8", found)):
            if not np.isfinite(scores).all():
                raise CheckFailed(f"the {whose} model returned scores that are not finite")
        for one, other in zip(wanted, found, strict=True):
            if wanted.dtype.kind == "f":
                self._collect_scores(one.astype(np.float64), other.astype(np.float64))
            else:
                wrong = int(np.count_nonzero(one != other))
                self._add(one.size, wrong, one.size - wrong, one.size, wrong / one.size)

    def _collect_scores(self, wanted: NDArray[np.float64], found: NDArray[np.float64]) -> None:
        """Of one image, C×h×w."""
        has_classes = wanted.ndim == 3 and len(wanted) > 1
        if has_classes:
            same = wanted.argmax(axis=0) == found.argmax(axis=0)
            wanted = wanted - wanted.mean(axis=0, keepdims=True)
            found = found - found.mean(axis=0, keepdims=True)
        else:
            same = np.rint(wanted) == np.rint(found)
        signal, noise = float(np.square(wanted).sum()), float(np.square(wanted - found).sum())
        share = noise / signal if signal > 0 else float(noise > 0)
        self._add(signal, noise, int(same.sum()), same.size, _divergence(wanted, found) if has_classes else share)

    def _add(self, signal: float, noise: float, same: int, positions: int, divergence: float) -> None:
        self.signal += signal
        self.noise += noise
        self.same += same
        self.positions += positions
        self.divergences.append(divergence)

    def compute(self) -> Fidelity:
        if not self.positions:
            raise ValueError("nothing was compared")
        divergence = math.exp(np.log(np.array(self.divergences) + NEGLIGIBLE).mean()) - NEGLIGIBLE
        return Fidelity(decibels(self.signal, self.noise), self.same / self.positions, max(0.0, divergence))


def _divergence(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Mean over positions of KL(softmax wanted ‖ softmax found), scores C×h×w, in nats. In float64, whose range no difference
    of two float32 leaves."""
    log_p, log_q = _log_softmax(wanted), _log_softmax(found)
    mean = float((np.exp(log_p) * (log_p - log_q)).sum(axis=0).mean())
    return max(0.0, mean)  # of nearly equal scores rounding alone is left


def _log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = scores - scores.max(axis=0, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=0, keepdims=True)))


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
