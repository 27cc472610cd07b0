"""Fixtures of the video tests; the stand-ins they hand out live in `video_stand_ins.py`, beside this file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from video_stand_ins import MjpegServer, RtspServer, brightness_segmenter, silent_server, write_video  # noqa: E402 (the path is set first)

from dlv3deploy.core.segmenter import Segmenter  # noqa: E402 (the path is set first)


@pytest.fixture
def segmenter() -> Segmenter:
    return brightness_segmenter()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Twelve frames of 64×48, 10 frames a second; frame i is grey 20·i."""
    return write_video(tmp_path / "clip.mp4", frames=12)


@pytest.fixture(scope="session")
def real_videos() -> list[Path]:
    folder = ROOT.parent / "shared" / "data" / "video"
    videos = sorted(folder.glob("*.mp4")) if folder.is_dir() else []
    if not videos:
        pytest.skip(f"no real videos in {folder}")
    return videos


@pytest.fixture
def mjpeg() -> Iterator[MjpegServer]:
    with MjpegServer() as server:
        yield server


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where a server takes connections and never says a word."""
    with silent_server() as port:
        yield port


@pytest.fixture(scope="session")
def rtsp() -> Iterator[RtspServer]:
    if reason := RtspServer.missing():
        pytest.skip(reason)
    with RtspServer() as server:
        yield server
