"""CalibrationTable: the ranges, how they were chosen, and everything they depend on, as `calibration.json` holds it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlv3deploy.calibration.fidelity import Fidelity
from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.mixed import Point
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import read_json, write_json
from dlv3deploy.core.spec import InputSpec
from dlv3deploy.core.workspace import Workspace

FEWEST_TO_SPLIT = 3  # images, of which every third judges the others


def how_pixels_are_read(given: InputSpec) -> str:
    """What ranges depend on besides the images: the `preprocessing` of a key."""
    return f"{given.colour_order} {given.resize}, mean {given.mean}, std {given.std}"


@dataclass(frozen=True)
class CalibrationKey:
    """Two calibrations with the same key give the same table.

    `resolution` is (height, width): a dilated layer's share of padding depends on it, so ranges taken at one size are not
    those of another. `preprocessing` says how pixels became input, `method` what was asked for, with all its options.
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

    @property
    def parents(self) -> dict[str, str]:
        """What the Q/DQ file is made from, by the names that a spec gives it."""
        return {"onnx": self.onnx_sha256, "calibration": self.digest()}


@dataclass(frozen=True)
class TriedMethod:
    """What `auto` tried, judged on images that it was not calibrated on."""

    method: str
    fidelity: Fidelity
    seconds: float


@dataclass(frozen=True)
class CalibrationTable:
    """`chosen` is the method that made the model, `fidelity` how near it comes to the float model, `model_sha256` that of its
    graph; `trials` are auto's, `mixtures` those that a budget made it measure."""

    key: CalibrationKey
    ranges: dict[str, Range]
    kept_float: tuple[str, ...]
    chosen: str
    fidelity: Fidelity
    model_sha256: str
    trials: tuple[TriedMethod, ...] = ()
    mixtures: tuple[Point, ...] = ()

    @property
    def elsewhere(self) -> Fidelity | None:
        """What auto's chosen method came to in its trial, on images that it was not calibrated on; None where there was none,
        where its images had to judge it too, or where a budget kept convolutions in floating point afterwards."""
        tells = bool(self.trials) and self.were_apart and not self.mixtures
        return self.trials[0].fidelity if tells else None

    @property
    def were_apart(self) -> bool:
        """Whether methods were judged on other images than those that they were calibrated on."""
        return self.key.images >= FEWEST_TO_SPLIT

    def write(self, path: Path) -> None:
        ranges = {name: [r.low, r.high] for name, r in self.ranges.items()}
        facts = {"chosen": self.chosen, "fidelity": asdict(self.fidelity), "kept_float": list(self.kept_float)}
        found = {"trials": [asdict(trial) for trial in self.trials], "mixtures": [asdict(point) for point in self.mixtures]}
        write_json(path, {**asdict(self.key), "model_sha256": self.model_sha256, **facts, **found, "ranges": ranges})

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
            trials = tuple(TriedMethod(t["method"], _fidelity(t["fidelity"]), float(t["seconds"])) for t in data["trials"])
            points = tuple(Point(int(p["kept"]), float(p["int8_share"]), float(p["drop"])) for p in data["mixtures"])
            kept, chosen, fidelity = tuple(data["kept_float"]), str(data["chosen"]), _fidelity(data["fidelity"])
            return cls(key, ranges, kept, chosen, fidelity, str(data["model_sha256"]), trials, points)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            remedy = f"make it again: {Workspace(path.parent).command('calibrate')}"
            raise UserError(str(path), f"is no calibration table ({error})", remedy) from error


def _fidelity(data: dict[str, Any]) -> Fidelity:
    return Fidelity(float(data["snr_db"]), float(data["agreement"]), float(data["divergence"]))
