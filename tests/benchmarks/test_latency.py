"""The latency script in its smallest form, on whatever CPU this is: who is in the table, and what is measured of whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--backbone", "mobilenet_v2", "--size", "65x65", "--seconds", "0.2", "--no-compile")


def latency(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/latency.py", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def tables(page: str) -> list[list[dict[str, str]]]:
    """Each table's rows by its header."""
    found: list[list[dict[str, str]]] = []
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None for line in page.splitlines()
    ]
    for before, cells in zip([None, *lines], lines, strict=False):
        if cells is not None and before is None:
            found.append([])
            header = cells
        elif cells is not None and set("".join(cells)) != {"-"}:
            found[-1].append(dict(zip(header, cells, strict=True)))
    return found


@pytest.mark.slow
def test_every_engine_that_runs_here_is_timed_beside_pytorch_and_one_of_a_runtime_is_kept() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    done = latency(*SMALL)
    assert done.returncode == 0, done.stderr
    engines, whole = tables(done.stdout)
    torch, *others = engines
    assert (torch["runtime"], torch["precision"], torch["× PyTorch"], torch["kept"]) == ("PyTorch", "FP32", "1.00", "")
    cpu = [row for row in others if row["runtime"] == "onnxruntime cpu"]
    assert {row["precision"] for row in cpu} == {"FP32", "INT8"} and {row["rewrites"] for row in cpu} > {"–"}
    assert sum(row["kept"] == "yes" for row in cpu) == 1
    for row in others:
        median = float(row["median"].removesuffix(" ms"))
        assert float(row["× PyTorch"]) == pytest.approx(float(torch["median"].removesuffix(" ms")) / median, abs=0.6, rel=0.1)
    (kept,) = (row for row in whole if row["engine"].startswith("onnxruntime cpu"))
    a_frame, alone = (float(kept[name].removesuffix(" ms")) for name in ("a frame of a run", "network alone"))
    assert alone > 0 and float(kept["run / network"]) == pytest.approx(a_frame / alone, abs=0.05, rel=0.05)
    assert "onnxruntime cpu FP16 (" in done.stdout


def test_a_size_that_is_none_is_one_line() -> None:
    pytest.importorskip("torch")
    done = latency("--size", "wide")
    assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr
