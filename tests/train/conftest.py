"""Fixtures of the training tests: one unbroken small run to compare with, and one checkpoint to export."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from small_runs import UnbrokenRun, shallow_backbone, small_plan, write_lively_checkpoint

from dlv3deploy.train import data_check, loop
from dlv3deploy.train.loop import train


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and threads that wait for one another on a busy machine cost minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def shallow_network() -> Iterator[None]:
    """What a test of the loop trains; `unbroken` was trained so too."""
    with shallow_backbone():
        yield


@pytest.fixture(scope="package")
def few_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 training and 3 validation scenes: two batches of two and one image left over."""
    from dlv3deploy.scenes import write_dataset

    root = tmp_path_factory.mktemp("few_scenes") / "data"
    write_dataset(root, 5, 3, seed=1, size=(64, 96))
    return root


@pytest.fixture(scope="package")
def unbroken(one_thread: None, few_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> UnbrokenRun:
    """`small_plan` on a shallow network, run from start to end."""
    root = tmp_path_factory.mktemp("unbroken")
    with shallow_backbone():
        result = train(small_plan(few_scenes), root / "model.safetensors", root / "train")
    return UnbrokenRun(root / "train", root / "model.safetensors", result)


@pytest.fixture(scope="package")
def lively_checkpoint(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lively_checkpoint(tmp_path_factory.mktemp("lively") / "model.safetensors")


@pytest.fixture(autouse=True)
def plain_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unbroken run has its curve drawn; for all others it would only take time."""
    monkeypatch.setattr(loop, "draw_curve", lambda path, rows: path.write_bytes(b"curve"))
    monkeypatch.setattr(data_check, "samples_picture", lambda data: np.zeros((2, 2, 3), np.uint8))
