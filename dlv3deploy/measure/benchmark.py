"""How long a frame takes from pixels to mask, stage by stage, for one model or several in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.images import Frame
from dlv3deploy.core.segmenter import Answer, Segmenter
from dlv3deploy.core.views import View
from dlv3deploy.engines.timing import Call, Limits, in_turns, milliseconds

STAGES = ("preprocessing", "inference", "postprocessing")
PERCENTILES = (50, 90, 99)
WARM_UP_S, FEWEST_ROUNDS, MOST_ROUNDS = 1.0, 8, 5000


@dataclass(frozen=True)
class Speed:
    """Milliseconds of every frame, frames × `STAGES`."""

    ms: NDArray[np.float64]

    @property
    def totals(self) -> NDArray[np.float64]:
        summed: NDArray[np.float64] = self.ms.sum(axis=1)
        return summed

    def latency_ms(self) -> dict[str, float]:
        """From a frame's pixels to its mask: `p50`, `p90` and `p99`."""
        return {f"p{p}": float(np.percentile(self.totals, p)) for p in PERCENTILES}

    def stages_ms(self) -> dict[str, float]:
        """Each stage's median."""
        return dict(zip(STAGES, np.median(self.ms, axis=0).tolist(), strict=True))


def benchmark(segmenters: Sequence[Segmenter], frames: Sequence[Frame], seconds: float) -> list[Speed]:
    """Every round each model has the same next frame of `frames`, H×W×3 BGR; for about this long, eight rounds at least.

    Raises CheckFailed where a model's output is broken.
    """
    calls = [_call(segmenter, frames) for segmenter in segmenters]
    return [Speed(ms) for ms in in_turns(calls, Limits(WARM_UP_S, seconds, FEWEST_ROUNDS, MOST_ROUNDS))]


def _call(segmenter: Segmenter, frames: Sequence[Frame]) -> Call:
    def one_frame(number: int) -> list[float]:
        frame = frames[number % len(frames)]
        views, answers = list[View](), list[Answer]()
        return [
            milliseconds(lambda: views.extend(segmenter.views(frame))),
            milliseconds(lambda: answers.extend(map(segmenter.infer, views))),
            milliseconds(lambda: segmenter.finish(answers)),
        ]

    return one_frame
