"""CalibrationTable: the ranges, and everything they depend on, as `calibration.json` holds it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlv3deploy.calibration.observers import Range
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import read_json, write_json
from dlv3deploy.core.workspace import Workspace


@dataclass(frozen=True)
class CalibrationKey:
    """Two calibrations with the same key give the same table.

    `resolution` is (height, width): a dilated layer's share of padding depends on it, so ranges taken at one size are not
    those of another. `preprocessing` says how pixels became input.
    """

    onnx_sha256: str
    images_sha256: str
    images: int
    resolution: tuple[int, int]
    preprocessing: str
    method: str

    def digest(self) -> str:
        """One sha256 over all of it, which the Q/DQ file names as its parent."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


@dataclass(frozen=True)
class CalibrationTable:
    key: CalibrationKey
    ranges: dict[str, Range]
    kept_float: tuple[str, ...]

    def write(self, path: Path) -> None:
        ranges = {name: [r.low, r.high] for name, r in self.ranges.items()}
        write_json(path, {**asdict(self.key), "kept_float": list(self.kept_float), "ranges": ranges})

    @classmethod
    def read(cls, path: Path) -> CalibrationTable:
        """Raises UserError when the file is missing or no calibration table."""
        data: dict[str, Any] = read_json(path)
        try:
            height, width = data["resolution"]
            key = CalibrationKey(
                data["onnx_sha256"],
                data["images_sha256"],
                int(data["images"]),
                (int(height), int(width)),
                str(data["preprocessing"]),
                data["method"],
            )
            ranges = {name: Range(float(low), float(high)) for name, (low, high) in data["ranges"].items()}
            return cls(key, ranges, tuple(data["kept_float"]))
        except (KeyError, TypeError, ValueError) as error:
            remedy = f"make it again: {Workspace(path.parent).command('build-engine', '--int8')}"
            raise UserError(str(path), f"is no calibration table ({error})", remedy) from error
