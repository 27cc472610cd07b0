"""The manifest beside every engine: what it was made from, by what, and for which machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import read_json, sha256_of, write_json
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.workspace import Workspace, by_building, manifest_path

MANIFEST_FORMAT = 5
PREVIOUS, SEALS = "previous", "seals"
OWN_ONNX = "model.onnx"  # the workspace's own, which `build-engine` takes without being told


@dataclass(frozen=True)
class Builder:
    """The backend that made the engine; another version of it may not read or run it alike."""

    name: str
    version: str
    flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """The machine that an engine is for; a None means any."""

    device: str
    compute_capability: str | None = None
    driver: str | None = None


@dataclass(frozen=True)
class Calibration:
    """What an INT8 engine's scales come from."""

    method: str
    images: int
    images_sha256: str
    table: str  # path relative to the engine's folder, or absolute when it lies elsewhere
    model_sha256: str  # of the INT8 graph, as the table has it
    resolution: tuple[int, int]


@dataclass(frozen=True)
class Timing:
    """Latency of one batch on the machine that built the engine, in milliseconds, over `runs` runs after warming up."""

    p50_ms: float
    p90_ms: float
    runs: int


@dataclass(frozen=True)
class Trial:
    """A candidate of tuning: its latency in milliseconds, timed or estimated, and whether it became the engine. `layout` is
    empty where a compiler chooses it."""

    precision: str
    rewrites: tuple[str, ...]
    layout: str
    p50_ms: float
    p90_ms: float
    is_estimate: bool
    is_kept: bool


@dataclass(frozen=True)
class Gate:
    """What an INT8 engine is held against: the same network in `precision`, both timed in turns.

    Where engines cannot run, the bytes that both plans move, `moved` in floating point and `int8_moved`.
    """

    precision: str
    timing: Timing | None = None
    int8_timing: Timing | None = None
    moved: int | None = None
    int8_moved: int | None = None


@dataclass(frozen=True)
class Manifest:
    spec: ModelSpec
    precision: str
    engine_sha256: str
    onnx: str  # path relative to the engine's folder, or absolute when it lies elsewhere
    onnx_sha256: str
    builder: Builder
    target: Target
    images: int = 1  # at most, of one inference; `timing` is of so many
    graph_sha256: str = ""  # of the compiled graph but for its weights where the engine takes new ones (`engines.refit`), and
    # with them where it has none itself (`engines.stripped`)
    layer_precision: Mapping[str, str] = field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    calibration: Calibration | None = None
    timing: Timing | None = None
    gate: Gate | None = None
    tuning: tuple[Trial, ...] = ()
    command: str = ""
    seals: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)  # as they were read

    def to_json(self) -> dict[str, Any]:
        content = {**asdict(self), "spec": self.spec.to_text()}
        del content["seals"]
        return {"format": MANIFEST_FORMAT, **content, SEALS: _seals(content)}

    def broken_seals(self) -> dict[str, tuple[str, str]]:
        """The fields that were changed since the manifest was written: their seals then and now."""
        now = self.to_json()[SEALS]
        return {name: (self.seals.get(name, "none"), seal) for name, seal in now.items() if self.seals.get(name) != seal}

    def write(self, path: Path, previous: Manifest | None = None) -> None:
        """`previous` is of the engine that still lies beside `path` and is about to be replaced (see `engines.release`)."""
        write_json(path, {**self.to_json(), **({PREVIOUS: previous.to_json()} if previous else {})})

    @classmethod
    def read(cls, engine: Path) -> Manifest:
        """The manifest of an engine. Raises UserError when it is missing or damaged."""
        path = manifest_path(engine)
        if not path.is_file():
            raise UserError(
                str(engine),
                f"has no manifest {path.name}, so nothing is known about it",
                by_building(engine),
            )
        data = read_json(path)
        try:
            if (previous := data.pop(PREVIOUS, None)) and engine.is_file() and sha256_of(engine) != data["engine_sha256"]:
                data = previous  # whoever was about to replace the engine did not come to it
            if (found := data.pop("format")) != MANIFEST_FORMAT:
                raise ValueError(f"its format is {found}, this version's is {MANIFEST_FORMAT}")
            if not isinstance(data["images"], int) or data["images"] < 1:
                raise TypeError(f"images is {data['images']!r}")
            for name in ("precision", "engine_sha256", "onnx", "onnx_sha256", "graph_sha256", "command"):
                if not isinstance(data[name], str):
                    raise TypeError(f"{name} is {data[name]!r}")
            _require_texts(data["builder"], "name", "version")
            _require_texts(data["target"], "device", "compute_capability", "driver", may_be_none=True)
            if data["calibration"]:
                _require_texts(data["calibration"], "method", "images_sha256", "table", "model_sha256")
            if not isinstance(data["builder"]["flags"], dict):
                raise TypeError(f"flags is {data['builder']['flags']!r}")
            calibration, timing, gate = (data.pop(name) for name in ("calibration", "timing", "gate"))
            if calibration:
                height, width = calibration.pop("resolution")
                calibration = Calibration(**calibration, resolution=(height, width))
            return cls(
                spec=ModelSpec.from_text(data.pop("spec"), str(path)),
                builder=Builder(**data.pop("builder")),
                target=Target(**data.pop("target")),
                calibration=calibration or None,
                timing=_timing(timing) if timing else None,
                gate=_gate(gate) if gate else None,
                rewrites=tuple(map(str, data.pop("rewrites"))),
                tuning=tuple(Trial(**{**trial, "rewrites": tuple(trial["rewrites"])}) for trial in data.pop("tuning")),
                layer_precision=dict(data.pop("layer_precision")),
                seals=dict(data.pop(SEALS)),
                **data,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = (
                error if isinstance(error, ValueError) else f"{error} is missing" if isinstance(error, KeyError) else "damaged"
            )
            raise UserError(str(path), f"is no manifest of this version ({reason})", "build the engine again") from error

    def rebuild(self, engine: Path) -> str:
        """The command that makes this engine anew; not one that somebody wrote into the manifest."""
        if self.command and "command" not in self.broken_seals():
            return f"rebuild with: {self.command}"
        source = () if self.onnx == OWN_ONNX else (self.onnx,)
        words = (*source, f"--{self.precision}", "--backend", self.builder.name)
        return f"rebuild with: {Workspace(engine.parent).command('build-engine', *words)}"


def format_of(engine: Path) -> int | None:
    """Of the manifest beside an engine, whichever version wrote it; None where there is none of ours."""
    try:
        data = read_json(manifest_path(engine))
    except (UserError, OSError):
        return None
    is_ours = isinstance(data, dict) and {"format", "engine_sha256", "onnx_sha256"} <= data.keys()
    return data["format"] if is_ours and isinstance(data["format"], int) else None


def _seals(content: Mapping[str, Any]) -> dict[str, str]:
    """Of each field the beginning of a sha256 over its JSON."""
    return {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12] for name, value in content.items()
    }


def _require_texts(data: Mapping[str, Any], *names: str, may_be_none: bool = False) -> None:
    for name in names:
        if not (isinstance(data[name], str) or (may_be_none and data[name] is None)):
            raise TypeError(f"{name} is {data[name]!r}")


def _gate(data: dict[str, Any]) -> Gate:
    moved, int8_moved = (None if (value := data.pop(name)) is None else int(value) for name in ("moved", "int8_moved"))
    timing, int8_timing = (_timing(value) if (value := data.pop(name)) else None for name in ("timing", "int8_timing"))
    return Gate(str(data.pop("precision")), timing, int8_timing, moved, int8_moved, **data)


def _timing(data: dict[str, Any]) -> Timing:
    return Timing(float(data["p50_ms"]), float(data["p90_ms"]), int(data["runs"]))


def relative_source(onnx: Path, engine: Path) -> str:
    """How the manifest names a file that the engine was made from: relative when it lies beside the engine, so that a workspace
    can be moved."""
    here, there = onnx.resolve(), engine.parent.resolve()
    return here.name if here.parent == there else str(here)
