"""`dlv3deploy inspect --dla`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app

pytest.importorskip("onnx")


def inspect(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)], env={"COLUMNS": "160"})


def test_layers_that_stay_on_the_gpu_are_named_with_the_reason(work: Path) -> None:
    facts = json.loads(inspect("--workspace", work, "--dla", "--json").stdout)["dla"]
    spread = next(layer for layer in facts["elsewhere"] if layer["operator"] == "Tile")
    assert spread["reason"] == "no layer of a DLA does it"
    assert facts["macs_on_dla"] == 1.0 and facts["layers"] > len(facts["elsewhere"])
    shown = inspect("--workspace", work, "--dla").stdout
    assert spread["node"] in shown and "PREDICTED from published restrictions" in shown and "nothing was run" in shown


def test_it_is_of_a_graph_and_no_part_of_a_plan(work: Path) -> None:
    refused = inspect(work / "model.onnx", "--plan", "--dla")
    assert refused.exit_code == 1 and "--dla: is nothing that a plan depends on" in refused.stderr
    assert json.loads(inspect("--workspace", work, "--json").stdout)["dla"] is None
