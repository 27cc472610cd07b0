"""What many tests share: the folder of real data, generated scenes, and a small trained chain."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from dlv3deploy.core.cache_folder import CACHE_VARIABLE

HAS_TORCH = find_spec("torch") is not None
collect_ignore = [] if HAS_TORCH else ["train"]

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_report_header() -> str:
    return "with PyTorch" if HAS_TORCH else "without PyTorch: tests/train is left out"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what needs real data or a GPU where there is none."""
    from dlv3deploy.engines.gpu import find_gpu

    has_gpu = find_gpu() is not None
    for item in items:
        if item.get_closest_marker("real_data") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason="the real data set folder ../shared is not beside this checkout"))
        if item.get_closest_marker("gpu") and not has_gpu:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test builds for itself, and the user's cache stays as it is."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def shared() -> Path:
    return SHARED


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 6 validation scenes of 64×96 pixels."""
    pytest.importorskip("cv2")
    from dlv3deploy.scenes import write_dataset

    root = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(root, 24, 6, seed=1, size=(64, 96))
    return root
