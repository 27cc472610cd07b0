"""The manifest beside every engine: what it was made from, by what, and for which machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlv3deploy.core.errors import StaleArtefact, UserError
from dlv3deploy.core.files import read_json, sha256_of, write_json
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.workspace import Workspace, by_building, manifest_path

MANIFEST_FORMAT = 1
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
class Manifest:
    spec: ModelSpec
    precision: str
    engine_sha256: str
    onnx: str  # path relative to the engine's folder, or absolute when it lies elsewhere
    onnx_sha256: str
    builder: Builder
    target: Target
    layer_precision: Mapping[str, str] = field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    calibration: Calibration | None = None
    timing: Timing | None = None
    gate: Mapping[str, Any] | None = None
    command: str = ""

    def write(self, path: Path) -> None:
        write_json(path, {"format": MANIFEST_FORMAT, **asdict(self), "spec": self.spec.to_text()})

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
            if data.pop("format") != MANIFEST_FORMAT:
                raise ValueError("of another format")
            for name in ("precision", "engine_sha256", "onnx", "onnx_sha256", "command"):
                if not isinstance(data[name], str):
                    raise TypeError(f"{name} is {data[name]!r}")
            calibration, timing = data.pop("calibration"), data.pop("timing")
            if calibration:
                height, width = calibration.pop("resolution")
                calibration = Calibration(**calibration, resolution=(height, width))
            return cls(
                spec=ModelSpec.from_text(data.pop("spec"), str(path)),
                builder=Builder(**data.pop("builder")),
                target=Target(**data.pop("target")),
                calibration=calibration or None,
                timing=_timing(timing) if timing else None,
                rewrites=tuple(map(str, data.pop("rewrites"))),
                layer_precision=dict(data.pop("layer_precision")),
                **data,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(str(path), f"is no manifest of this version ({error})", "build the engine again") from error

    def rebuild(self, engine: Path) -> str:
        """The command that makes this engine anew."""
        if self.command:
            return f"rebuild with: {self.command}"
        source = () if self.onnx == OWN_ONNX else (self.onnx,)
        words = (*source, f"--{self.precision}", "--backend", self.builder.name)
        return f"rebuild with: {Workspace(engine.parent).command('build-engine', *words)}"


def _timing(data: dict[str, Any]) -> Timing:
    return Timing(float(data["p50_ms"]), float(data["p90_ms"]), int(data["runs"]))


def check_fresh(engine: Path, manifest: Manifest, builder: Builder, target: Target) -> None:
    """Raise StaleArtefact, naming the field and both values, unless the engine fits its ONNX, this backend and this machine."""

    def require(name: str, found: object, expected: object) -> None:
        if found != expected:
            raise StaleArtefact(str(engine), name, found, expected, manifest.rebuild(engine))

    require("sha256 of the engine file", manifest.engine_sha256[:12], sha256_of(engine)[:12])
    source = engine.parent / manifest.onnx
    if not source.is_file():
        say(f"{engine}: {source} is gone, so whether the engine still fits it is not checked")
    else:
        require(f"sha256 of {source.name}", manifest.onnx_sha256[:12], sha256_of(source)[:12])
    if manifest.calibration is not None and (table := engine.parent / manifest.calibration.table).is_file():
        require(f"model_sha256 in {table.name}", manifest.calibration.model_sha256[:12], _calibrated_model(table)[:12])
    require("builder", manifest.builder.name, builder.name)
    require(f"{builder.name} version", manifest.builder.version, builder.version)
    for name, found, here in (
        ("device", manifest.target.device, target.device),
        ("compute capability", manifest.target.compute_capability, target.compute_capability),
        ("driver", manifest.target.driver, target.driver),
    ):
        if found is not None:
            require(name, found, here)


def _calibrated_model(table: Path) -> str:
    """sha256 of the INT8 graph that a calibration table belongs to."""
    try:
        return str(dict(read_json(table))["model_sha256"])
    except (UserError, KeyError, TypeError, ValueError):
        return "none"


def relative_source(onnx: Path, engine: Path) -> str:
    """How the manifest names a file that the engine was made from: relative when it lies beside the engine, so that a workspace
    can be moved."""
    here, there = onnx.resolve(), engine.parent.resolve()
    return here.name if here.parent == there else str(here)
