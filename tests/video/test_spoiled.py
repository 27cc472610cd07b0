"""Five hundred spoiled videos and pictures: no crash, no hang, and what was skipped is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from read_spoiled import PICTURES
from video_stand_ins import HANG_LIMIT_S

from dlv3deploy.video import open_source, parse_source

ROOT = Path(__file__).parents[2]
COUNT = 125


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_left_of_a_file_is_read_or_refused(seed: int, tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("read_spoiled.py")), str(seed), str(COUNT), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, capture_output=True, text=True, timeout=8 * HANG_LIMIT_S, check=False, env=environment)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == COUNT
    assert {entry["kind"] for entry in found} == {"cut", "empty", "bytes", "zeros", "hole", "head"}
    for entry in found:
        if entry["error"] is not None:
            assert entry["path"] in entry["error"] and "\n" not in entry["error"]
        else:
            assert entry["frames"] > 0
        if entry["kind"] == "empty":
            assert "is empty" in entry["error"] or "is not a readable picture" in entry["error"]
    read = [entry for entry in found if entry["error"] is None]
    assert 0 < len(read) < COUNT  # some of either
    short = [entry for entry in read if entry["failed"]]
    assert all(f"{entry['path']}: decoding ended after {entry['frames']} frames" in done.stderr for entry in short)


def test_a_folder_of_them_counts_what_it_leaves_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = [sys.executable, str(Path(__file__).with_name("read_spoiled.py")), "9", str(COUNT), str(tmp_path)]
    subprocess.run(
        program, capture_output=True, check=True, timeout=8 * HANG_LIMIT_S, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    pictures = [path for path in tmp_path.iterdir() if path.suffix in PICTURES]
    with open_source(parse_source(str(tmp_path))) as source:
        read = len(list(iter(source.read, None)))
        assert source.frame_count == len(pictures)
        assert read + source.failed == len(pictures) and source.failed > 0
    assert f"{source.failed} of {len(pictures)} pictures could not be read and were left out" in capfd.readouterr().err
