"""TensorRT's own memory of how long kernels took, kept between builds on one GPU: the next build times only what is new."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from dlv3deploy.core.cache_folder import cache_folder
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import write_bytes
from dlv3deploy.core.progress import say
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
    held = _read(file)
    if not config.set_timing_cache(config.create_timing_cache(held), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    yield
    learnt = config.get_timing_cache()
    if learnt is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if (now := _read(file)) not in (held, b""):
                learnt.combine(config.create_timing_cache(now), True)
            write_bytes(file, bytes(memoryview(learnt.serialize())))
    except (OSError, UserError) as error:  # the engine is built, and worth more than this
        say(f"kernel times are not kept: {error}")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
