"""Models timed in turns, stage by stage."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tiny_models import CLASSES, HEIGHT, WIDTH, tiny_spec

from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.measure import benchmark as module
from dlv3deploy.measure.benchmark import STAGES, Speed, benchmark

CLOCK = [1000.0]  # seconds; the tests' own, as a machine may be busy


class Slow(ClosingEngine):
    """Moves the clock on for so long, and notes what it was given."""

    name, spec, input_shape = "slow", tiny_spec(), (1, 3, HEIGHT, WIDTH)

    def __init__(self, milliseconds: float, seen: list[tuple[float, float]]) -> None:
        self.milliseconds, self.seen = milliseconds, seen

    def infer(self, batch: Batch) -> Outputs:
        self.seen.append((self.milliseconds, float(batch.mean())))
        CLOCK[0] += self.milliseconds / 1e3
        return np.zeros((1, CLASSES, HEIGHT // 4, WIDTH // 4), np.float32)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WARM_UP_S", 0.0)
    monkeypatch.setattr("dlv3deploy.engines.timing.time", SimpleNamespace(perf_counter=lambda: CLOCK[0]))


def test_models_have_the_same_frame_in_every_round_and_time_goes_to_its_stage() -> None:
    seen: list[tuple[float, float]] = []
    segmenters = [Segmenter(Slow(milliseconds, seen)) for milliseconds in (4.0, 12.0)]
    frames = [np.full((HEIGHT, WIDTH, 3), shade, np.uint8) for shade in (0, 100, 200)]
    fast, slow = benchmark(segmenters, frames, 0.0)
    assert fast.ms.shape == slow.ms.shape == (module.FEWEST_ROUNDS, len(STAGES))
    rounds = seen[2:]  # one round warms up
    assert [given for given, _ in rounds] == [4.0, 12.0] * module.FEWEST_ROUNDS
    means = [mean for _, mean in rounds]
    assert means[::2] == means[1::2] and means[0] == means[6] != means[2]
    assert slow.stages_ms() == pytest.approx({"preprocessing": 0.0, "inference": 12.0, "postprocessing": 0.0})
    assert fast.latency_ms()["p99"] == pytest.approx(4.0)


def test_percentiles_are_of_whole_frames() -> None:
    speed = Speed(np.array([[1.0, 10.0, 2.0]] * 99 + [[1.0, 100.0, 2.0]]))
    latency = speed.latency_ms()
    assert latency["p50"] == latency["p90"] == 13.0 and 13.0 < latency["p99"] < 103.0
    assert speed.stages_ms() == {"preprocessing": 1.0, "inference": 10.0, "postprocessing": 2.0}
