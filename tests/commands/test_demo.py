"""`dlv3deploy demo`: the whole chain in one command, as the README's first one runs it, with fewer steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


@pytest.mark.slow
def test_the_demo_runs_the_whole_chain(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dlv3deploy", "demo", "--steps", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=1200)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "artifacts" / "demo" / "demo.html").read_text()
    assert page.count("data:image") == 3 * 5 + 1
    assert "INT8" in done.stdout
    assert "no published weights" in done.stderr
    assert (tmp_path / "artifacts" / "demo" / "drive.labelled.mp4").stat().st_size > 0
