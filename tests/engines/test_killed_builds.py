"""Whoever kills builds, at whatever moment, never finds an engine that cannot be read, and loses none that was there."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

HERE = Path(__file__).parent
KILLS = 100


def outcomes(*arguments: object) -> dict[str, int]:
    paths = os.pathsep.join([str(HERE.parent), str(HERE.parents[1])])
    command = [sys.executable, HERE / "killed_builds.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = ast.literal_eval(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    found = outcomes(tmp_path, "at-random", KILLS, 1)
    assert found["killed"] == KILLS and found["newer"] > 0
    with_temporaries = sorted(path.name for path in tmp_path.glob("cache/.*partial*"))
    assert len(with_temporaries) <= 2 * 4  # of each key at most those of its last builder: the next one sweeps them


@pytest.mark.slow
def test_nor_does_a_kill_at_any_step_in_which_files_take_their_names(tmp_path: Path) -> None:
    """Six renames, those of the cache and those of the place: manifest, engine, manifest."""
    assert outcomes(tmp_path, "at-renames") == {"killed": 12, "newer": 4}
