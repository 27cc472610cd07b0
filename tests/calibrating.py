"""`dlv3deploy calibrate` as its tests call it, and pictures for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app


def calibrate(work: Path, *arguments: object) -> Result:
    words = ["calibrate", "--workspace", work, "--no-report", *arguments]
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(work: Path, *arguments: object, code: int = 1) -> str:
    """The one line that the command ends with; nothing on the disk has changed."""
    before = tree(work.parent)
    done = calibrate(work, *arguments)
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert done.stderr.splitlines()[-1] == lines[0]
    assert "Traceback" not in done.output
    assert tree(work.parent) == before
    return lines[0]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pictures(folder: Path, *values: np.ndarray) -> Path:
    import cv2

    folder.mkdir()
    for number, picture in enumerate(values):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder
