"""No page tells where files lie, and names of nodes stay."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hidden_paths import without_paths


def test_a_path_of_this_machine_becomes_its_last_part(tmp_path: Path) -> None:
    model = tmp_path / "some" / "model.onnx"
    assert without_paths(f"{model}: is damaged") == "model.onnx: is damaged"
    assert without_paths(f'File "{sys.executable}", line 3') == f'File "{Path(sys.executable).name}", line 3'
    assert without_paths(f"--model x={model},data={tmp_path}/data --every 4") == "--model x=model.onnx,data=data --every 4"


@pytest.mark.parametrize("text", ["node /bb/f/f.0/Conv_output_0 (Conv)", "../shared/data", "3 / 4", "a/b/c", "libs at /"])
def test_what_is_no_path_of_this_machine_stays(text: str) -> None:
    assert without_paths(text) == text
