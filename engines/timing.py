"""How long inference takes on this machine: of one engine, of several in turns, and of an engine's layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlv3deploy.core.engine import Batch, Engine
from dlv3deploy.engines.manifest import Timing

WARM_UP_RUNS = 3
WARM_UP_S = 0.3
MOST_RUNS = 50
BUDGET_S = 2.0  # stop measuring after this long, with three runs at least
Call = Callable[[int], Sequence[float]]  # does a thing for the given round; milliseconds of its parts


def noise_for(engine: Engine, images: int = 1) -> Batch:
    """A batch of the spec's size, the same every time."""
    given = engine.spec.input
    return np.random.default_rng(0).standard_normal((images, 3, given.height, given.width)).astype(np.float32)


def measure_latency(engine: Engine, images: int = 1) -> Timing:
    """Median and 90th percentile of `infer` on one batch of the spec's size, milliseconds."""
    batch = noise_for(engine, images)
    for _ in range(WARM_UP_RUNS):
        engine.infer(batch)
    times_ms: list[float] = []
    deadline = time.perf_counter() + BUDGET_S
    while len(times_ms) < 3 or (len(times_ms) < MOST_RUNS and time.perf_counter() < deadline):
        times_ms.append(milliseconds(lambda: engine.infer(batch)))
    return timing_of(times_ms)


def latencies_in_turns(engines: Sequence[Engine], images: int) -> list[Timing]:
    """As `measure_latency`, of each engine, round after round."""
    limits = Limits(WARM_UP_S, len(engines) * BUDGET_S, WARM_UP_RUNS, MOST_RUNS)
    return [timing_of(ms) for ms in infer_in_turns(engines, images, limits)]


def infer_in_turns(engines: Sequence[Engine], images: int, limits: Limits) -> list[NDArray[np.float64]]:
    """Milliseconds of one inference of each engine on so many images of noise, every round."""
    batch = noise_for(engines[0], images)

    def call(engine: Engine) -> Call:
        return lambda _round: [milliseconds(lambda: engine.infer(batch))]

    return [times[:, 0] for times in in_turns([call(engine) for engine in engines], limits)]


def timing_of(ms: ArrayLike) -> Timing:
    """Median and 90th percentile."""
    times = np.asarray(ms, np.float64)
    p50, p90 = np.percentile(times, [50, 90])
    return Timing(round(float(p50), 3), round(float(p90), 3), times.size)


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


@dataclass(frozen=True)
class Limits:
    """How long to warm clocks and caches, then to measure, in seconds; and how many rounds at least and at most."""

    warm_up_s: float
    seconds: float
    fewest: int
    most: int


def in_turns(calls: Sequence[Call], limits: Limits) -> list[NDArray[np.float64]]:
    """Milliseconds of every part of each call, rounds × parts, round after round, so that whatever slows the machine slows all
    alike."""
    warm = time.perf_counter() + limits.warm_up_s
    while True:
        for call in calls:
            call(0)
        if time.perf_counter() >= warm:
            break
    rounds: list[list[Sequence[float]]] = []
    deadline = time.perf_counter() + limits.seconds
    while len(rounds) < limits.fewest or (len(rounds) < limits.most and time.perf_counter() < deadline):
        rounds.append([call(len(rounds)) for call in calls])
    return [np.asarray(of_one, np.float64) for of_one in zip(*rounds, strict=True)]


@dataclass(frozen=True)
class LayerTime:
    """A layer that a backend ran, by its own name and kind ("" where it tells none), and its median in milliseconds."""

    name: str
    kind: str
    ms: float


def medians(runs: Sequence[Sequence[tuple[str, str, float]]]) -> list[LayerTime]:
    """Of what a backend reports of each run (name, kind, milliseconds), in its order; what shares a name is one layer."""
    found: dict[tuple[str, str], list[float]] = {}
    for number, reported in enumerate(runs):
        for name, kind, ms in reported:
            times = found.setdefault((name, kind), [0.0] * len(runs))
            times[number] += ms
    return [LayerTime(name, kind, float(np.median(times))) for (name, kind), times in found.items()]
