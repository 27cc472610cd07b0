"""Tuning: which precision, rewrites and layout are fastest on this machine, by its own clock; elsewhere by compiled plans.

Where engines run, all candidates are timed in turns, round after round, so that whatever slows the machine slows them alike. A
candidate takes the place of the one before it only when it is faster beyond noise: in the median, and in most rounds. Where
they do not run, TensorRT-RTX compiles them all the same and the roofline of a named device ranks them: an estimate, marked so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.engine import Engine
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.progress import say, tracked
from dlv3deploy.core.workspace import ENGINE_SUFFIX
from dlv3deploy.engines.build import as_asked, build, build_key
from dlv3deploy.engines.cache import EngineCache, key_of
from dlv3deploy.engines.dialect import TENSORRT_RTX, nearest_capability
from dlv3deploy.engines.manifest import Manifest, Trial
from dlv3deploy.engines.onnxruntime_engine import NAME
from dlv3deploy.engines.plans.devices import DEVICES, Device
from dlv3deploy.engines.plans.roofline import estimate_ms
from dlv3deploy.engines.prepare import prepared
from dlv3deploy.engines.providers import layouts
from dlv3deploy.engines.release import copied
from dlv3deploy.engines.request import FOR_ONE_IMAGE, EngineRequest, backend_of
from dlv3deploy.engines.rewrites.certified import BY_DEFAULT
from dlv3deploy.engines.rewrites.rewrite import HEAD
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_options import capability_digits
from dlv3deploy.engines.timing import Limits, infer_in_turns, timing_of

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
    which has them all. Equal tuning is taken from `cache` as it came out.

    `requests` differ in precision, the one to fall back to first; of their rewrites the head alone is taken as asked for.
    Raises UserError when a backend is missing or refuses the first of them, where candidates do not run here and no device is
    known to estimate them for, and where they do and one is.
    """
    first = next(iter(requests.values()))
    device = tuning_device(first, device)
    of_the_head = tuple(name for name in first.rewrites if name == HEAD)  # it saves work wherever it may go
    proved = REWRITES if find_spec("onnxruntime") is not None else ((),)
    fitting = [names for names in proved if first.batch == 1 or not set(names) & set(FOR_ONE_IMAGE)]
    sets = [(*names, *of_the_head) for names in fitting]
    variants = [(names, layout) for layout in _layouts(first) for names in sets]
    everything = [replace(r, rewrites=names, layout=layout) for r in requests.values() for names, layout in variants]
    if cache is None:
        with TemporaryDirectory() as folder:
            engine = Path(folder) / f"best{ENGINE_SUFFIX}"
            return _placed(requests, engine, _best(everything, engine, None, device))
    key = key_of({"tune": [build_key(request) for request in everything], "device": device and device.title})
    with cache.slot(key) as slot:
        known = cache.found(slot)
        if known is not None:
            say(f"these candidates were tuned before, and the best is taken from {cache.folder} (--no-cache tunes again)")
        return _placed(requests, slot, known or _best(everything, slot, cache, device))


def _layouts(request: EngineRequest) -> tuple[str | None, ...]:
    """Those of ONNX Runtime, its own choice first. TensorRT's compilers choose one for every kernel by themselves."""
    return layouts(request.provider) or (None,) if request.backend == NAME else (None,)


def _placed(requests: Mapping[Path, EngineRequest], engine: Path, manifest: Manifest) -> tuple[Path, Manifest]:
    """A copy of the best engine where its precision belongs."""
    place, request = next((place, request) for place, request in requests.items() if request.precision == manifest.precision)
    return place, copied(engine, as_asked(manifest, request), place)


def _best(requests: Sequence[EngineRequest], engine: Path, cache: EngineCache | None, device: Device | None) -> Manifest:
    """Build the best into `engine`: timed, or estimated for a device."""
    if device is None:
        with TemporaryDirectory() as folder:
            return _raced(requests, Path(folder), engine, cache)
    ranked = _estimated(requests, device)
    best = fastest(ranked)
    manifest = build(ranked[best].request, engine, cache)
    return copied(engine, replace(manifest, tuning=_trials(ranked, best, is_estimate=True)), engine)


def fastest(candidates: Sequence[Candidate]) -> int:
    """The index of the one to keep: each is held against the best before it, round by round."""
    best = 0
    for index, candidate in enumerate(candidates[1:], 1):
        kept = candidates[best]
        if np.median(candidate.ms) < np.median(kept.ms) and np.mean(candidate.ms < kept.ms) >= FASTER_ROUNDS:
            best = index
    return best


def _raced(requests: Sequence[EngineRequest], folder: Path, engine: Path, cache: EngineCache | None) -> Manifest:
    built: list[tuple[EngineRequest, Path, Manifest]] = []
    for number, request in enumerate(tracked(requests, "building")):
        path = folder / f"{number}{ENGINE_SUFFIX}"
        with _may_fail(request, has_another=bool(built)):
            manifest = build(request, path, cache)
            made = (request.precision, request.layout, manifest.rewrites)
            if all(made != (r.precision, r.layout, m.rewrites) for r, _, m in built):
                built.append((request, path, manifest))  # rewrites that change nothing make no candidate
    running = list[tuple[EngineRequest, Path, Manifest]]()
    with ExitStack() as opened:
        engines = list[Engine]()
        for request, path, manifest in built:
            with _may_fail(request, has_another=bool(engines)):  # all are open at once, which memory may not allow
                engines.append(opened.enter_context(backend_of(request).open(path, manifest.spec)))
                running.append((request, path, manifest))
        times = race(engines, requests[0].batch)
    candidates = [Candidate(request, m.rewrites, ms) for (request, _, m), ms in zip(running, times, strict=True)]
    best = fastest(candidates)
    _, path, manifest = running[best]
    timing = timing_of(candidates[best].ms)
    return copied(path, replace(manifest, timing=timing, tuning=_trials(candidates, best)), engine)


@contextmanager
def _may_fail(request: EngineRequest, has_another: bool) -> Iterator[None]:
    """Say what became of a candidate that cannot be built, where there is another one."""
    try:
        yield
    except (UserError, CheckFailed) as error:
        if not has_another:
            raise
        layout = f", {request.layout} layout" if request.layout else ""
        say(f"no candidate: {request.precision.upper()} with {', '.join(request.rewrites) or 'no rewrites'}{layout}: {error}")


def race(engines: Sequence[Engine], images: int = 1) -> list[NDArray[np.float64]]:
    """Milliseconds of one inference of each engine on so many images, engines in turns."""
    return infer_in_turns(engines, images, Limits(WARM_UP_S, ROUNDS_S, FEWEST_ROUNDS, MOST_ROUNDS))


def tuning_device(request: EngineRequest, device: Device | None) -> Device | None:
    """What candidates are estimated for where they do not run here: the device asked for, or the one of the request's target;
    None where they are timed. Raises UserError where there is none, and where one is asked for in vain."""
    if not backend_of(request).runs_here():
        return device or _device_of(request)
    if device is not None:
        raise UserError("--device", f"engines of {request.backend} run here, and are timed", "leave it out")
    return None


def _device_of(request: EngineRequest) -> Device:
    """The device of the one capability that the request names."""
    named = set(map(capability_digits, request.options.capabilities))
    known = [device for device in DEVICES.values() if named == {capability_digits(device.capability)}]
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
    capability = nearest_capability(TENSORRT_RTX, device.capability)
    options = replace(requests[0].options, capabilities=requests[0].options.capabilities or (capability,))
    for request in tracked(requests, "compiling"):
        with _may_fail(request, has_another=bool(found)):
            done = prepared(request)
            if (key := (request.precision, done.names)) in seen:
                continue
            seen.add(key)
            plan = TensorRTBackend(TENSORRT_RTX, options).plan(done.model.SerializeToString(), str(request.onnx))
            found.append(Candidate(request, done.names, np.asarray([estimate_ms(plan, device)])))
    compiled = capability_digits(options.capabilities[0])
    say(f"estimated for {device.title} from plans for sm_{compiled}, by its published peaks: nothing was timed")
    return found


def _trials(candidates: Sequence[Candidate], best: int, is_estimate: bool = False) -> tuple[Trial, ...]:
    return tuple(
        Trial(
            candidate.request.precision,
            candidate.rewrites,
            candidate.request.layout or "",
            round(float(np.median(candidate.ms)), 4),
            round(float(np.percentile(candidate.ms, 90)), 4),
            is_estimate,
            index == best,
        )
        for index, candidate in enumerate(candidates)
    )
