"""Fixtures of the weights' tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from file_server import Served, file_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    """A mirror without any file, and an empty cache."""
    monkeypatch.setenv("DLV3DEPLOY_CACHE", str(tmp_path / "cache"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with file_server() as served:
        monkeypatch.setenv("DLV3DEPLOY_WEIGHTS_URL", f"{served.url}/models/")
        yield served
