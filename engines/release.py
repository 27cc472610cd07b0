"""An engine takes its place together with its manifest, or not at all, though they are two files.

The manifest goes first and holds the older one besides, the engine second, and then the older manifest is dropped. Whoever is
killed in between leaves an engine with a manifest that knows it: the new one, or the older one that it replaces.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from dlv3deploy.core.cache_folder import cache_folder
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing
from dlv3deploy.core.workspace import manifest_path
from dlv3deploy.engines.manifest import Manifest, relative_source

LOCKS = "locks"


def copied(source: Path, manifest: Manifest, engine: Path) -> Manifest:
    """Release a copy of the engine file `source`, with this manifest, at `engine`."""

    def copy(fresh: Path) -> Manifest:
        shutil.copyfile(source, fresh)
        return replace(manifest, onnx=relative_source(source.parent / manifest.onnx, engine))

    return release(engine, copy)


def release(engine: Path, make: Callable[[Path], Manifest]) -> Manifest:
    """Let `make` write a file, and put it in the place of `engine`, with the manifest that it returns beside it.

    When anything fails, or the process is killed, an older engine and its manifest stay usable. Raises what `make` raises, and
    UserError where the place cannot be written.
    """
    place = manifest_path(engine)
    with ExitStack() as held:
        with replacing(engine) as fresh:
            manifest = make(fresh)
            held.enter_context(_alone_at(engine))
            manifest.write(place, previous=_sound(engine))
        manifest.write(place)
    return manifest


def _sound(engine: Path) -> Manifest | None:
    """The manifest of the engine that is about to be replaced, None where it would be refused anyway."""
    with suppress(UserError):
        older = Manifest.read(engine) if engine.is_file() else None
        return None if older is None or older.broken_seals() else older
    return None


@contextmanager
def _alone_at(engine: Path) -> Iterator[None]:
    """Keep others from releasing to the same place meanwhile: two files of two engines would not fit.

    The lock lies in the cache, where engines of one name may come from different keys; where that cannot be written, there is
    none.
    """
    name = hashlib.sha256(str(engine.resolve()).encode()).hexdigest()[:32]
    lock = FileLock(cache_folder() / LOCKS / name)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()
