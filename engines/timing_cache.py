"""TensorRT's own memory of how long kernels took, kept between builds on one GPU: the next build times only what is new."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from dlv3deploy.core.cache_folder import cache_folder
from dlv3deploy.core.files import write_bytes
from dlv3deploy.engines.manifest import Builder, Target


def timing_cache_file(maker: Builder, target: Target) -> Path:
    """Of one TensorRT on one device: times of another are none."""
    parts = (maker.name, maker.version, target.device, target.compute_capability, target.driver)
    name = "-".join(re.sub(r"[^\w.]+", "-", part).strip("-").lower() for part in parts if part)
    return cache_folder() / "timing" / f"{name}.cache"


@contextmanager
def timing_cache(config: Any, file: Path) -> Iterator[None]:
    """Let the build inside use what `file` has, and keep what it learns. A file that TensorRT does not take is begun anew.

    Builds at the same time share the file: what either learns is added to what the other left.
    """
    held = file.read_bytes() if file.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(held), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    yield
    learnt = config.get_timing_cache()
    if learnt is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if file.is_file() and (now := file.read_bytes()) != held:
            learnt.combine(config.create_timing_cache(now), True)
        write_bytes(file, bytes(memoryview(learnt.serialize())))
