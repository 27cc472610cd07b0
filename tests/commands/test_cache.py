"""`dlv3deploy cache` and the second of two equal `build-engine`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app

pytest.importorskip("onnxruntime")


def dlv3deploy(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})


def listed() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(dlv3deploy("cache", "list", "--json").stdout)["engines"]
    return found


def test_the_second_build_is_the_first(work: Path) -> None:
    first = dlv3deploy("build-engine", "--workspace", work)
    second = dlv3deploy("build-engine", "--workspace", work)
    assert "an equal engine" not in first.stderr and "an equal engine (FP32, no rewrites) was built" in second.stderr
    (entry,) = listed()
    assert entry["is_whole"] and entry["precision"] == "fp32" and entry["size"] == [64, 96]
    again = dlv3deploy("build-engine", "--workspace", work, "--no-cache")
    assert again.exit_code == 0 and "an equal engine" not in again.stderr
    shown = dlv3deploy("cache", "list").stdout
    assert "1 engine" in shown and str(entry["key"])[:12] in shown and str(work / "model.onnx") in shown


def test_int8_and_the_float_engine_that_it_is_held_against_are_both_kept(work: Path, data: Path) -> None:
    command = ("build-engine", "--int8", "--workspace", work, "--images", data / "train" / "images", "--calibration-images", 4)
    first, second = dlv3deploy(*command), dlv3deploy(*command)
    assert first.exit_code == second.exit_code == 0, first.output + second.output
    assert sorted(str(entry["precision"]) for entry in listed()) == ["fp32", "int8"]
    (said,) = {line for done in (first, second) for line in done.stderr.splitlines() if "floating point here" in line}
    assert "in turns" in said


def test_pruning_says_what_went(work: Path) -> None:
    dlv3deploy("build-engine", "--workspace", work)
    assert "removed 0 engines" in dlv3deploy("cache", "prune").stdout
    assert dlv3deploy("inspect", work / "model.fp32.cpu.engine").exit_code == 0
    told = json.loads(dlv3deploy("cache", "prune", "--unused", 0, "--json").stdout)
    assert len(told["removed"]) == 1 and told["bytes"] > 0
    assert "no engines in" in dlv3deploy("cache", "list").stdout
    assert dlv3deploy("inspect", work / "model.fp32.cpu.engine").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("empty",), "list, prune"), (("list", "--unused", 3), "--unused with list: says what prune removes; leave it out")],
)
def test_what_cannot_be_done_is_refused_by_name(arguments: tuple[object, ...], says: str) -> None:
    done = dlv3deploy("cache", *arguments)
    assert done.exit_code == 1 and says in done.stderr
