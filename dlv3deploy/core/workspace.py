"""The folder through which commands hand over to one another, and the names that files have in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ENGINE_SUFFIX = ".engine"


@dataclass(frozen=True)
class Workspace:
    """`./artifacts` unless `--workspace` says otherwise."""

    root: Path = Path("artifacts")

    @property
    def checkpoint(self) -> Path:
        return self.root / "model.safetensors"

    @property
    def onnx(self) -> Path:
        return self.root / "model.onnx"

    @property
    def int8_onnx(self) -> Path:
        return self.root / "model.int8.onnx"

    @property
    def calibration(self) -> Path:
        return self.root / "calibration.json"

    @property
    def training(self) -> Path:
        return self.root / "train"

    def engine(self, precision: str, target: str) -> Path:
        return self.root / f"model.{precision}.{target}{ENGINE_SUFFIX}"

    def engines(self) -> list[Path]:
        return sorted(self.root.glob(f"model.*{ENGINE_SUFFIX}"))


def manifest_path(engine: Path) -> Path:
    """Where an engine's manifest lies: beside it, `.json` added."""
    return engine.with_name(engine.name + ".json")
