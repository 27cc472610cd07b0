"""Reports that are kept: a data set whose files did not change is not read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.datasets.report import DataReport
from dlv3deploy.core.datasets.sample import Coding, Sample
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import read_json, write_json

VERSION = 1  # of the checks and of the file: another one makes old reports void


def fingerprint(samples: Iterable[Sample], classes: Classes) -> str:
    """sha256 over the classes and over every file's path, size and time of change, and how its label is read."""
    digest = hashlib.sha256(f"{VERSION} {classes.names} {classes.ignore_index}".encode("utf-8", "surrogatepass"))
    states: dict[Path, bytes] = {}
    codings: dict[Coding, bytes] = {}
    for sample in samples:
        if sample.coding not in codings:
            codings[sample.coding] = hashlib.sha256(repr(sample.coding).encode()).digest()
        for path in (sample.image, sample.label):
            if path not in states:
                states[path] = _state(path)
        digest.update(states.pop(sample.image) + states[sample.label] + codings[sample.coding])
    return digest.hexdigest()


def _state(path: Path) -> bytes:
    try:
        facts = path.stat()
    except OSError:
        return os.fsencode(path) + b" is missing\0"
    return os.fsencode(path) + f" {facts.st_size} {facts.st_mtime_ns}\0".encode()


def cache_path(folder: Path, root: Path, split: str) -> Path:
    """Where the report of a data set's split is kept in `folder`."""
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    return folder / f"data-{place}-{split}.json"


def load_report(path: Path, key: str) -> DataReport | None:
    """The report kept under `key`, or None where there is none, it is of other files, or it cannot be read."""
    if not path.is_file():
        return None
    try:
        kept: dict[str, Any] = read_json(path)
        if kept["fingerprint"] != key:
            return None
        report = _from_json(kept["report"])
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return report if len(report.held) == report.images else None


def _from_json(values: dict[str, Any]) -> DataReport:
    return DataReport(
        names=tuple(values["names"]),
        images=int(values["images"]),
        sizes=tuple((int(h), int(w), int(n)) for h, w, n in values["sizes"]),
        pixels=tuple(map(int, values["pixels"])),
        ignored=int(values["ignored"]),
        images_with=tuple(map(int, values["images_with"])),
        pixels_around=tuple(map(int, values["pixels_around"])),
        held=tuple(int(bits, 16) for bits in values["held"]),
    )


def keep_report(path: Path, key: str, report: DataReport) -> None:
    """Write the report where `load_report` finds it."""
    values = asdict(report) | {"held": [f"{bits:x}" for bits in report.held]}
    write_json(path, {"fingerprint": key, "report": values})
