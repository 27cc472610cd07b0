"""What the tests of commands begin with: a workspace with an ONNX file, and data of their own to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from calibrating import calibrate, pictures
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


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of six pictures of noise."""
    pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    return pictures(tmp_path / "pictures", *(random.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(6)))


@pytest.fixture
def older(work: Path, images: Path) -> Path:
    """A workspace that holds a calibration already."""
    assert calibrate(work, "--images", images, "--method", "min-max").exit_code == 0
    assert {"model.int8.onnx", "calibration.json"} <= {path.name for path in work.iterdir()}
    return work
