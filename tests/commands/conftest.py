"""What the tests of commands begin with: a workspace with an ONNX file, and data of their own to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_models import write_tiny


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace with an ONNX file."""
    (tmp_path / "artifacts").mkdir()
    write_tiny(tmp_path / "artifacts" / "model.onnx")
    return tmp_path / "artifacts"


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    return shutil.copytree(scenes, tmp_path / "data")
