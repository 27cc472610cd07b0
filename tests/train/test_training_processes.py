"""Training on several devices at once, here two processes of one CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import independent_scores, rows_of

from dlv3deploy.train.checkpoint import load_checkpoint

HERE = Path(__file__).parent


@pytest.mark.slow
def test_two_processes_train_one_model_and_report_what_it_scores(few_scenes: Path, tmp_path: Path) -> None:
    """Their batch-norm statistics differ, and both must validate with those that are saved."""
    command = [sys.executable, str(HERE / "train_on_two_processes.py"), str(few_scenes), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    model, spec = load_checkpoint(tmp_path / "model.safetensors")
    expected = independent_scores(model, few_scenes)
    (line,) = done.stdout.splitlines()  # the second process ends with the training
    assert [float(score) for score in line.split()] == pytest.approx(expected, abs=1e-12)
    assert spec.training is not None and spec.training.miou == pytest.approx(expected[0], abs=1e-12)
    assert [row["step"] for row in rows_of(tmp_path / "train")] == ["3", "6"]
    assert done.stderr.count("step 6/6") == 1
