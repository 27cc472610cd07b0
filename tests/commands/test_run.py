"""`run` with a page in place of a screen, and what it leaves behind when one of its outputs is refused."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.core.images import write_frame

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    write_frame(tmp_path / "shot.png", np.full((48, 64, 3), 90, np.uint8))
    return tmp_path / "shot.png"


def run(work: Path, picture: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["run", "--workspace", str(work), "--source", str(picture), *arguments])


def test_a_page_is_enough(work: Path, picture: Path) -> None:
    before = set(work.iterdir())
    done = run(work, picture, "--serve", "0", "--opacity", "0.3", "--json")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"^live page: http://127\.0\.0\.1:\d+/$", done.stderr, re.MULTILINE)
    facts = json.loads(done.stdout)
    assert (facts["frames"], facts["sinks"], facts["page"]) == (1, [], "0")
    assert set(work.iterdir()) == before


def test_a_page_and_a_file(work: Path, picture: Path, tmp_path: Path) -> None:
    done = run(work, picture, "--serve", "localhost:0", "--sink", str(tmp_path / "out.mp4"))
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "out.mp4").stat().st_size > 0


def test_a_page_that_cannot_be_served_leaves_no_file_behind(work: Path, picture: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for serve, rule in ((str(taken.getsockname()[1]), "cannot be served"), ("here", "no PORT or HOST:PORT")):
            done = run(work, picture, "--serve", serve, "--sink", str(tmp_path / "out.mp4"))
            assert done.exit_code == 1 and rule in done.stderr
    assert not list(tmp_path.glob("out*"))


def test_steadiness_is_checked_and_said(work: Path, picture: Path) -> None:
    done = run(work, picture, "--steady", "0.5", "--sink", "none", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["steady"] == 0.5
    assert "from 0 to below 1" in run(work, picture, "--steady", "1", "--sink", "none").stderr


def test_stats_are_a_table_of_every_stage(work: Path, picture: Path) -> None:
    done = run(work, picture, "--stats", "--sink", "none")
    assert done.exit_code == 0
    for stage in ("preprocessing", "inference", "postprocessing"):
        assert re.search(rf"{stage}\s+.\s+\d+\.\d\s+.\s+\d+\.\d", done.stdout), done.stdout
    assert "glass" not in done.stdout
