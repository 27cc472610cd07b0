"""What `dlv3deploy calibrate` tells about its result: the page, and the object of `--json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.core.workspace import report_page, report_path

if TYPE_CHECKING:
    from dlv3deploy.calibration.report import CalibrationReport
    from dlv3deploy.calibration.table import CalibrationTable


def write_page(model: Path, made: CalibrationTable, table_path: Path) -> CalibrationReport | None:
    """The report on this calibration that lies beside its table, also as a page."""
    from dlv3deploy.calibration.report_file import read_report
    from dlv3deploy.core.progress import say
    from dlv3deploy.measure.calibration_page import CalibrationPage

    report, page = read_report(report_path(table_path), made.key.digest()), report_page(table_path)
    if report is not None:
        CalibrationPage(model.name, made, report).write(page)
        say(f"which layers cost most, and what to do: {page}")
    return report


def print_facts(int8_path: Path, made: CalibrationTable, report: CalibrationReport | None) -> None:
    """The object of `--json`; `costly` and `advice` are null without a report."""
    import json
    from dataclasses import asdict

    height, width = made.key.resolution
    trials = [{"method": trial.method, **asdict(trial.fidelity), "duration_ms": 1000 * trial.seconds} for trial in made.trials]
    facts = {
        "model": str(int8_path),
        "method": made.chosen,
        "images": made.key.images,
        "size": [height, width],
        "fidelity": asdict(made.fidelity),
        "elsewhere": None if made.elsewhere is None else asdict(made.elsewhere),
        "kept_float": list(made.kept_float),
        "trials": trials,
        "costly": None if report is None else [asdict(layer) for layer in report.costly],
        "advice": None if report is None else list(report.advice),
    }
    print(json.dumps(facts, ensure_ascii=False))
