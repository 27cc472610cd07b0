"""The throughput script in its smallest form, on whatever CPU this is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--backbone", "mobilenet_v2", "--crop", "65", "--batch-size", "2", "--steps", "1", "--turns", "2", "--warm-up", "1")


def throughput(*options: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("lightning_fabric")
    command = [sys.executable, "benchmarks/throughput.py", *SMALL, "--no-compile", "--workers", "0", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def positive_and_ordered(spread: dict[str, float]) -> bool:
    return 0 < spread["min"] <= spread["median"] <= spread["max"]


@pytest.mark.parametrize("batches", ["memory", "loader, 0 workers"])
def test_json_has_both_loops_and_their_ratio_and_judges_no_goal_on_a_cpu(batches: str) -> None:
    done = throughput("--device", "cpu", "--json", *(["--with-loader"] if batches != "memory" else []))
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    assert (facts["device"], facts["machine"]["gpu"], facts["batches"]) == ("cpu", None, batches)
    assert facts["goal"] == {"ratio": 3.0, "met": None}
    for loop in (facts["ours"], facts["plain"]):
        assert positive_and_ordered(loop["images_per_second"])
        assert positive_and_ordered(loop["step_ms"])
        assert loop["peak_memory_bytes"] is None
    assert positive_and_ordered(facts["ratio"])
    assert facts["plain"]["what"].startswith("float32, contiguous, eager")


def test_text_ends_with_the_ratio_and_says_that_a_cpu_proves_nothing_about_the_goal() -> None:
    done = throughput("--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("the goal of 3 is for a GPU, this ran on a CPU")


def test_a_gpu_that_is_not_there_is_refused_in_one_line() -> None:
    done = throughput("--device", "cuda:99")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: --device cuda:99: torch finds no such GPU")
    assert len(done.stderr.splitlines()) == 1
