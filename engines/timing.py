"""How long one inference takes on this machine."""

from __future__ import annotations

import time

import numpy as np

from dlv3deploy.core.engine import Batch, Engine
from dlv3deploy.engines.manifest import Timing

WARM_UP_RUNS = 3
MOST_RUNS = 50
BUDGET_S = 2.0  # stop measuring after this long, with three runs at least


def noise_for(engine: Engine) -> Batch:
    """One input of the spec's size, the same every time."""
    given = engine.spec.input
    return np.random.default_rng(0).standard_normal((1, 3, given.height, given.width)).astype(np.float32)


def measure_latency(engine: Engine) -> Timing:
    """Median and 90th percentile of `infer` on one input of the spec's size, milliseconds."""
    batch = noise_for(engine)
    for _ in range(WARM_UP_RUNS):
        engine.infer(batch)
    times_ms: list[float] = []
    deadline = time.perf_counter() + BUDGET_S
    while len(times_ms) < 3 or (len(times_ms) < MOST_RUNS and time.perf_counter() < deadline):
        started = time.perf_counter()
        engine.infer(batch)
        times_ms.append((time.perf_counter() - started) * 1e3)
    p50, p90 = np.percentile(times_ms, [50, 90])
    return Timing(round(float(p50), 3), round(float(p90), 3), len(times_ms))
