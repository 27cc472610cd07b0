"""Tuning: which precision and which exact rewrites are fastest on this machine, by its own clock; elsewhere by compiled plans.

Where engines run, all candidates are timed in turns, round after round, so that whatever slows the machine slows them alike. A
candidate takes the place of the one before it only when it is faster beyond noise: in the median, and in most rounds. Where
they do not run, TensorRT-RTX compiles them all the same and the roofline of a named device ranks them: an estimate, marked so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.engine import Engine
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.progress import say, tracked
from dlv3deploy.core.workspace import ENGINE_SUFFIX
from dlv3deploy.engines.build import EngineRequest, backend_of, build, prepared
from dlv3deploy.engines.cache import EngineCache
from dlv3deploy.engines.dialect import TENSORRT_RTX
from dlv3deploy.engines.manifest import Manifest, Timing, Trial
from dlv3deploy.engines.plans.devices import DEVICES, Device
from dlv3deploy.engines.plans.roofline import estimate_ms
from dlv3deploy.engines.release import copied
from dlv3deploy.engines.rewrites.certified import BY_DEFAULT
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend

REWRITES = ((), BY_DEFAULT, (*BY_DEFAULT, "regions"), (*BY_DEFAULT, "sub-grids"))
WARM_UP_S, ROUNDS_S, FEWEST_ROUNDS, MOST_ROUNDS = 1.0, 8.0, 8, 200
FASTER_ROUNDS = 0.75  # of all, before a candidate counts as faster


@dataclass(frozen=True)
class Candidate:
    """A request, and what it came to: milliseconds of every round, or of the one estimate."""

    request: EngineRequest
    rewrites: tuple[str, ...]
    ms: NDArray[np.float64]


def tune(requests: Mapping[Path, EngineRequest], cache: EngineCache | None, device: Device | None) -> tuple[Path, Manifest]:
    """Build the fastest of all `requests`, each with every set of rewrites, where the request's key says; with its manifest,
    which has them all.

    `requests` differ in precision, the one to fall back to first. Raises UserError when a backend is missing or refuses a
    model, and where candidates do not run here and no device is known to estimate them for.
    """
    first = next(iter(requests.values()))
    sets = REWRITES if find_spec("onnxruntime") is not None else ((),)  # which proves that they are exact
    everything = [(place, replace(request, rewrites=names)) for place, request in requests.items() for names in sets]
    if backend_of(first).runs_here():
        with TemporaryDirectory() as folder:
            return _raced(everything, Path(folder), cache)
    ranked = _estimated([request for _, request in everything], device or _device_of(first))
    best = fastest(ranked)
    place = next(place for place, request in everything if request is ranked[best].request)
    manifest = build(ranked[best].request, place, cache)
    return place, copied(place, replace(manifest, tuning=_trials(ranked, best, is_estimate=True)), place)


def fastest(candidates: Sequence[Candidate]) -> int:
    """The index of the one to keep: each is held against the best before it, round by round."""
    best = 0
    for index, candidate in enumerate(candidates[1:], 1):
        kept = candidates[best]
        if np.median(candidate.ms) < np.median(kept.ms) and np.mean(candidate.ms < kept.ms) >= FASTER_ROUNDS:
            best = index
    return best


def _raced(requests: Sequence[tuple[Path, EngineRequest]], folder: Path, cache: EngineCache | None) -> tuple[Path, Manifest]:
    built: list[tuple[EngineRequest, Path, Manifest]] = []
    places: list[Path] = []
    for number, (place, request) in enumerate(tracked(requests, "building")):
        path = folder / f"{number}{ENGINE_SUFFIX}"
        manifest = build(request, path, cache)
        if all((manifest.precision, manifest.rewrites) != (m.precision, m.rewrites) for *_, m in built):
            built.append((request, path, manifest))  # rewrites that change nothing make no candidate
            places.append(place)
    with ExitStack() as opened:
        engines = [opened.enter_context(backend_of(request).open(path, m.spec)) for request, path, m in built]
        times = race(engines)
    candidates = [Candidate(request, m.rewrites, ms) for (request, _, m), ms in zip(built, times, strict=True)]
    best = fastest(candidates)
    _, path, manifest = built[best]
    ms = candidates[best].ms
    timing = Timing(round(float(np.median(ms)), 3), round(float(np.percentile(ms, 90)), 3), len(ms))
    return places[best], copied(path, replace(manifest, timing=timing, tuning=_trials(candidates, best)), places[best])


def race(engines: Sequence[Engine]) -> list[NDArray[np.float64]]:
    """Milliseconds of one inference of each engine, engines in turns, after a second of warming clocks and caches."""
    given = engines[0].spec.input
    batch = np.random.default_rng(0).standard_normal((1, 3, given.height, given.width)).astype(np.float32)
    warm = time.perf_counter() + WARM_UP_S
    while True:
        for engine in engines:
            engine.infer(batch)
        if time.perf_counter() >= warm:
            break
    rounds: list[list[float]] = []
    deadline = time.perf_counter() + ROUNDS_S
    while len(rounds) < FEWEST_ROUNDS or (len(rounds) < MOST_ROUNDS and time.perf_counter() < deadline):
        rounds.append([])
        for engine in engines:
            started = time.perf_counter()
            engine.infer(batch)
            rounds[-1].append((time.perf_counter() - started) * 1e3)
    return list(np.asarray(rounds, np.float64).T)


def _device_of(request: EngineRequest) -> Device:
    """The device of the one capability that the request names."""
    digits = {text.lower().removeprefix("sm_").removeprefix("sm").replace(".", "") for text in request.options.capabilities}
    known = [device for device in DEVICES.values() if digits == {device.capability.replace(".", "")}]
    if not known:
        raise UserError(
            "--tune",
            "cannot time engines here, and no device is named to estimate them for",
            f"add --device {'|'.join(DEVICES)}",
        )
    return known[0]


def _estimated(requests: Sequence[EngineRequest], device: Device) -> list[Candidate]:
    found: list[Candidate] = []
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for request in tracked(requests, "compiling"):
        model, rewrites = prepared(request)
        if (key := (request.precision, rewrites)) in seen:
            continue
        seen.add(key)
        plan = TensorRTBackend(TENSORRT_RTX, request.options).plan(model.SerializeToString(), str(request.onnx))
        found.append(Candidate(request, rewrites, np.asarray([estimate_ms(plan, device)])))
    say(f"estimated for {device.title} by its published peaks: nothing was timed")
    return found


def _trials(candidates: Sequence[Candidate], best: int, is_estimate: bool = False) -> tuple[Trial, ...]:
    return tuple(
        Trial(
            candidate.request.precision,
            candidate.rewrites,
            round(float(np.median(candidate.ms)), 4),
            round(float(np.percentile(candidate.ms, 90)), 4),
            is_estimate,
            index == best,
        )
        for index, candidate in enumerate(candidates)
    )
