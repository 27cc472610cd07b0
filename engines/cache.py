"""Engines that were built before, found again by everything that decides what a build makes.

A folder of engines named after their keys, each with its manifest. Whoever builds holds the key's lock: builders of the same
engine wait for the first, and take what it made. A lock is the operating system's and falls with the process, however it ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dlv3deploy.core.cache_folder import CACHE_VARIABLE
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import sha256_of, sweep
from dlv3deploy.core.progress import say
from dlv3deploy.core.workspace import ENGINE_SUFFIX, manifest_path
from dlv3deploy.engines.manifest import MANIFEST_FORMAT, Manifest, format_of

KEY_LENGTH = 32  # hexadecimal digits of a sha256
FOLDER, LOCKS = "engines", "locks"
SOURCES = Path(__file__).resolve().parent


def key_of(facts: Mapping[str, Any]) -> str:
    """The key of a build by its facts, what this version of the package makes of them included."""
    text = json.dumps({**facts, "code": code_sha256()}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def code_sha256() -> str:
    """One sha256 over the sources that turn a graph into an engine: this package's and those below it."""
    import dlv3deploy.core

    core = Path(dlv3deploy.core.__file__).resolve().parent
    files = sorted(file for folder in (SOURCES, core) for file in folder.rglob("*.py"))
    return hashlib.sha256(b"\n".join(file.read_bytes() for file in files)).hexdigest()


@dataclass(frozen=True)
class Entry:
    """An engine in the cache. `manifest` is None where it cannot be read or does not fit; `used` in seconds since 1970."""

    engine: Path
    manifest: Manifest | None
    bytes: int
    used: float

    @property
    def is_older(self) -> bool:
        """Whether another version of this package made it, rather than that it is damaged."""
        return self.manifest is None and format_of(self.engine) not in (None, MANIFEST_FORMAT)

    @property
    def key(self) -> str:
        return self.engine.name.removesuffix(ENGINE_SUFFIX)


@dataclass(frozen=True)
class EngineCache:
    """A folder of engines that any number of processes may use at once.

    Of one that is to be built `anew`, nothing is taken but what it was given itself, which takes the place of what was there.
    """

    folder: Path
    anew: bool = False
    given: set[Path] = field(default_factory=set, compare=False, repr=False)

    @contextmanager
    def slot(self, key: str) -> Iterator[Path]:
        """The place of an engine, held against everybody else. Raises UserError where the cache cannot be written."""
        engine = self.folder / f"{key}{ENGINE_SUFFIX}"
        try:
            lock = self._lock(key)
            if not _taken(lock):
                say("the same engine is being built by another process; waiting for it")
                lock.acquire()
        except OSError as error:
            raise UserError(*_unwritable(self.folder, error)) from error
        try:
            for left in (engine, manifest_path(engine)):
                sweep(left)
            yield engine
        finally:
            lock.release()

    @property
    def is_writable(self) -> bool:
        try:
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self.folder, os.W_OK)

    def found(self, engine: Path) -> Manifest | None:
        """The manifest of a slot's engine, when both are whole; its use is noted."""
        if self.anew and engine not in self.given:
            self.given.add(engine)  # whoever asks builds it then
            return None
        manifest = _whole(engine)
        if manifest is not None:
            with suppress(OSError):
                os.utime(manifest_path(engine))
        return manifest

    def entries(self) -> list[Entry]:
        """All engines, the one used last first."""
        kept = (engine for engine in self.folder.glob(f"*{ENGINE_SUFFIX}") if not engine.name.startswith("."))
        found = (self._entry(engine) for engine in kept)
        return sorted((entry for entry in found if entry is not None), key=lambda entry: -entry.used)

    def _entry(self, engine: Path) -> Entry | None:
        try:
            place = manifest_path(engine)
            used = (place if place.is_file() else engine).stat().st_mtime
            return Entry(engine, _whole(engine), engine.stat().st_size, used)
        except OSError:  # gone meanwhile
            return None

    def prune(self, unused_days: float | None) -> tuple[list[Entry], list[Entry]]:
        """Remove engines that are damaged or were not used for so long (all, for 0 days), and what killed builders left.

        Returns those removed, and those that a builder held just then.
        """
        removed, held = [], []
        for entry in self.entries():
            idle_days = (time.time() - entry.used) / 86400
            if entry.manifest is not None and (unused_days is None or idle_days < unused_days):
                continue
            lock = self._lock(entry.key)
            if not _taken(lock):
                held.append(entry)
                continue
            with suppress(FileNotFoundError):
                manifest_path(entry.engine).unlink()
            with suppress(FileNotFoundError):
                entry.engine.unlink()
            lock.release()
            removed.append(entry)
        for key in {path.name.lstrip(".").split(".")[0] for path in self.folder.glob("*.*")}:
            self._sweep(key)
        return removed, held

    def _sweep(self, key: str) -> None:
        """Remove what is left of an engine that is gone, or of its killed builders, unless one is at it."""
        engine = self.folder / f"{key}{ENGINE_SUFFIX}"
        if not _taken(lock := self._lock(key)):
            return
        for left in (engine, manifest_path(engine)):
            sweep(left)
        if not engine.exists():
            manifest_path(engine).unlink(missing_ok=True)
        lock.release()

    def _lock(self, key: str) -> FileLock:
        (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / LOCKS / key)


def _unwritable(folder: Path, error: OSError) -> tuple[str, str, str]:
    reason = error.strerror or str(error)
    return str(folder), f"cannot be written ({reason})", f"name another with {CACHE_VARIABLE}, or add --no-cache"


def _taken(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def _whole(engine: Path) -> Manifest | None:
    """The manifest of an engine that it fits and that is as it was written, or None."""
    try:
        manifest = Manifest.read(engine)
        return manifest if manifest.engine_sha256 == sha256_of(engine) and not manifest.broken_seals() else None
    except (UserError, CheckFailed, OSError):
        return None
