"""`dlv3deploy calibrate`: the report and its page beside the table, made once, left out when not wanted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import write_tiny

from dlv3deploy.calibration.table import CalibrationTable

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


def calibrate(folder: Path, scenes: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = ["calibrate", "--images", str(scenes / "val" / "images"), "--method", "min-max", *options]
    done = subprocess.run(
        [sys.executable, "-m", "dlv3deploy", *words], capture_output=True, text=True, check=False, cwd=folder, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a workspace that holds a model."""
    (tmp_path / "artifacts").mkdir()
    write_tiny(tmp_path / "artifacts" / "model.onnx")
    return tmp_path


def test_a_report_and_its_page_lie_beside_the_table_and_are_made_once(folder: Path, scenes: Path) -> None:
    done = calibrate(folder, scenes, "--json")
    report, page = (folder / "artifacts" / f"calibration.{suffix}" for suffix in ("report.json", "html"))
    assert f"which layers cost most, and what to do: {page.relative_to(folder)}" in done.stderr
    facts = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert set(facts) == {
        "model",
        "method",
        "images",
        "size",
        "fidelity",
        "elsewhere",
        "kept_float",
        "trials",
        "costly",
        "advice",
    }
    assert (facts["model"], facts["method"]) == ("artifacts/model.int8.onnx", "min-max")
    assert 0 < facts["fidelity"]["agreement"] <= 1
    assert [layer["name"] for layer in facts["costly"]] == [layer["name"] for layer in json.loads(report.read_text())["costly"]]
    assert all(name in page.read_text() for name in ("stem", "atrous", "projection"))

    made_at = report.stat().st_mtime_ns
    assert json.loads(calibrate(folder, scenes, "--json").stdout) == facts
    assert report.stat().st_mtime_ns == made_at


def test_no_report_leaves_it_out_and_a_later_call_makes_it_without_calibrating_again(folder: Path, scenes: Path) -> None:
    done = calibrate(folder, scenes, "--no-report", "--json")
    place = folder / "artifacts"
    assert [path.name for path in place.glob("calibration.*")] == ["calibration.json"]
    assert (json.loads(done.stdout)["costly"], json.loads(done.stdout)["advice"]) == (None, None)
    made_at = (place / "calibration.json").stat().st_mtime_ns
    assert calibrate(folder, scenes).stdout == ""
    assert (place / "calibration.json").stat().st_mtime_ns == made_at
    table = CalibrationTable.read(place / "calibration.json")
    data = json.loads((place / "calibration.report.json").read_text())
    assert data["calibration"] == table.key.digest()
    assert data["fidelity"]["snr_db"] == pytest.approx(table.fidelity.snr_db, abs=1e-3)
    assert (place / "calibration.html").is_file()


def test_names_follow_the_tables(folder: Path, scenes: Path) -> None:
    calibrate(folder, scenes, "--table", "mine.json")
    assert {path.name for path in folder.glob("mine*")} == {"mine.json", "mine.report.json", "mine.html"}
