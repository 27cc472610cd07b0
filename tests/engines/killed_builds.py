"""Builds that are killed. Run by test_killed_builds.py, in a process that may be forked: it has no threads.

    python killed_builds.py FOLDER at-random KILLS SEED
    python killed_builds.py FOLDER at-renames

Each child builds one of four tiny models, through the cache, over the engine that is there; the parent kills it after a moment
that is drawn, or the child itself before and behind each rename. Then whatever lies at the engine's place
must be whole: the older engine or the newer.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime  # noqa: F401 (loaded before the forks, so that children begin to build at once)
from tiny_models import HEIGHT, WIDTH, tiny_spec, write_tiny

from dlv3deploy.core.errors import Dlv3Error
from dlv3deploy.engines import timing
from dlv3deploy.engines.build import build
from dlv3deploy.engines.cache import EngineCache
from dlv3deploy.engines.manifest import Manifest
from dlv3deploy.engines.request import EngineRequest

IMAGE = np.random.default_rng(0).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)


def main() -> int:
    folder = Path(sys.argv[1])
    timing.BUDGET_S, timing.MOST_RUNS = 0.0, 3
    cache, engine = EngineCache(folder / "cache"), folder / "model.engine"
    sources = [write_tiny(folder / f"{number}.onnx", seed=number) for number in range(4)]
    requests = [EngineRequest(source, source, tiny_spec(), "fp32", "onnxruntime") for source in sources]
    took_s = _whole_build(requests[0], engine, cache)
    if sys.argv[2] == "at-random":
        outcomes = _at_random(requests, engine, cache, took_s)
    else:
        outcomes = _at_renames(requests, engine, cache)
    print(outcomes)
    return 0


def _at_random(requests: list[EngineRequest], engine: Path, cache: EngineCache, took_s: float) -> dict[str, int]:
    kills, chance = int(sys.argv[3]), random.Random(int(sys.argv[4]))
    outcomes = {"killed": 0, "finished": 0, "newer": 0}
    while outcomes["killed"] < kills:
        request = chance.choice(requests)
        for held in cache.folder.glob("*.engine*"):  # half of the builds find nothing there
            if chance.random() < 0.5:
                held.unlink()
        child = os.fork()
        if child == 0:
            _build_and_end(request, engine, cache)
        time.sleep(chance.random() * took_s)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        outcomes["killed" if os.WIFSIGNALED(status) else "finished"] += 1
        outcomes["newer"] += _require_whole(engine, requests).onnx == request.onnx.name
        for entry in cache.entries():
            if entry.manifest is not None:
                _require_whole(entry.engine, requests)
    return outcomes


def _at_renames(requests: list[EngineRequest], engine: Path, cache: EngineCache) -> dict[str, int]:
    """One build after another of the next model, each killed one step later: before a rename, behind it, before the next, …"""
    outcomes = {"killed": 0, "newer": 0}
    for step in itertools.count():
        request = requests[1 + step % 3]
        child = os.fork()
        if child == 0:
            _die_at_rename(step // 2, behind=step % 2 == 1)
            _build_and_end(request, engine, cache)
        _, status = os.waitpid(child, 0)
        outcomes["newer"] += _require_whole(engine, requests).onnx == request.onnx.name
        if not os.WIFSIGNALED(status):
            return outcomes
        outcomes["killed"] += 1
        for held in cache.folder.glob("*.engine*"):
            held.unlink()
    raise AssertionError


def _die_at_rename(number: int, behind: bool) -> None:
    real, count = Path.replace, itertools.count()

    def replace(self: Path, target: Path) -> Path:
        here = next(count) == number
        if here and not behind:
            os.kill(os.getpid(), signal.SIGKILL)
        moved = real(self, target)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.replace = replace  # type: ignore[method-assign,assignment]  # in a child alone


def _build_and_end(request: EngineRequest, engine: Path, cache: EngineCache) -> NoReturn:
    try:
        build(request, engine, cache)
    finally:
        os._exit(0)


def _whole_build(request: EngineRequest, engine: Path, cache: EngineCache) -> float:
    """Seconds of a build in a child, so that this process starts no thread."""
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        build(request, engine, cache)
        os._exit(0)
    os.waitpid(child, 0)
    return time.perf_counter() - started


def _require_whole(engine: Path, requests: list[EngineRequest]) -> Manifest:
    """The manifest of an engine that is a whole file, made from the source that its manifest names."""
    from dlv3deploy.core.files import sha256_of

    try:
        manifest = Manifest.read(engine)
    except Dlv3Error as error:
        sys.exit(f"lost: {error}")
    if manifest.engine_sha256 != sha256_of(engine):
        sys.exit(f"{engine} is not what its manifest says")
    if manifest.onnx_sha256 not in {sha256_of(request.source) for request in requests}:
        sys.exit(f"{engine} is made from none of the files")
    return manifest


if __name__ == "__main__":
    sys.exit(main())
