"""What was measured stays measured: JSON facts in files, each with the key of all that it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import read_json, write_json

Key = Mapping[str, Any]  # of JSON values
Fact = dict[str, Any]


def remembered(path: Path, key: Key, make: Callable[[], Fact], holds: Callable[[Fact], bool] = lambda _fact: True) -> Fact:
    """The fact in `path` when it has this very `key` and `holds` says so; otherwise what `make` returns, which is written.

    When `make` raises, nothing is written.
    """
    if (found := recall(path, key)) is not None and holds(found):
        return found
    fact = make()
    write_json(path, {"key": dict(key), "fact": fact})
    return fact


def recall(path: Path, key: Key) -> Fact | None:
    """The fact in `path`, or None when there is none of this key; a damaged file counts as none."""
    if not path.is_file():
        return None
    try:
        data = read_json(path)
        return dict(data["fact"]) if data["key"] == dict(key) else None
    except (UserError, KeyError, TypeError, ValueError):
        return None


def digest(key: Key) -> str:
    """One sha256 over a key, for the keys of what follows from it."""
    return hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()


def source_hash(*places: Path) -> str:
    """One sha256 over Python files and all Python files of folders, names and contents."""
    files = [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    sums = (f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files)
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()
