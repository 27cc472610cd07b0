"""`calibration.report.json`: a calibration report on the disk, and which calibration it tells about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlv3deploy.calibration.fidelity import Fidelity
from dlv3deploy.calibration.layer_facts import GridUse, LayerFacts
from dlv3deploy.calibration.output_error import ErrorFacts, Ring
from dlv3deploy.calibration.report import CalibrationReport, CostlyLayer
from dlv3deploy.calibration.tensor_facts import TensorFacts
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import is_object_with, read_json, write_json
from dlv3deploy.core.workspace import report_page, report_path


def write_report(path: Path, report: CalibrationReport, calibration: str) -> None:
    """`calibration` is the digest of the calibration's key."""
    write_json(path, {"calibration": calibration, **report.to_json()})


def read_report(path: Path, calibration: str) -> CalibrationReport | None:
    """The report on this very calibration; None when the file is missing, damaged, or about another one."""
    try:
        data: dict[str, Any] = dict(read_json(path))
        return _report(data) if data.pop("calibration") == calibration else None
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return None


def is_report(path: Path) -> bool:
    """Whether a report is there, also one of another version."""
    return is_object_with(path, "calibration", "layers")


def remove_report(table_path: Path) -> None:
    """Remove the report beside a calibration table, of whatever version, and its page. A file that is no report stays, and so
    does the page beside it."""
    path = report_path(table_path)
    if not is_report(path):
        return
    path.unlink()
    if (page := report_page(table_path)).is_file():
        page.unlink()


def _report(data: dict[str, Any]) -> CalibrationReport:
    parts = {
        "fidelity": Fidelity(**data["fidelity"]),
        "one_by_one": Fidelity(**data["one_by_one"]),
        "costly_in_float": Fidelity(**data["costly_in_float"]),
        "layers": tuple(_layer(layer) for layer in data["layers"]),
        "tensors": tuple(_tensor(tensor) for tensor in data["tensors"]),
        "costly": tuple(CostlyLayer(**layer) for layer in data["costly"]),
        "advice": tuple(data["advice"]),
    }
    return CalibrationReport(**{**data, **parts})


def _layer(data: dict[str, Any]) -> LayerFacts:
    parts = {
        "kernel": tuple(data["kernel"]),
        "atrous_rate": tuple(data["atrous_rate"]),
        "grid": None if data["grid"] is None else GridUse(**data["grid"]),
        "alone": None if data["alone"] is None else _error(data["alone"]),
        "accumulated": _error(data["accumulated"]),
    }
    return LayerFacts(**{**data, **parts})


def _error(data: dict[str, Any]) -> ErrorFacts:
    return ErrorFacts(**{**data, "rings": tuple(Ring(**ring) for ring in data["rings"])})


def _tensor(data: dict[str, Any]) -> TensorFacts:
    return TensorFacts(**{**data, "shares_with": tuple(data["shares_with"]), "counts": tuple(data["counts"])})
