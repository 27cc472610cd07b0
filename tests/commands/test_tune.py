"""`dlv3deploy build-engine --tune`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.engines import tune

pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "WARM_UP_S", 0.0)
    monkeypatch.setattr(tune, "ROUNDS_S", 0.0)


def dlv3deploy(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})


def test_candidates_are_told_and_the_engine_is_named_after_its_precision(work: Path, data: Path) -> None:
    images = ("--images", data / "train" / "images", "--calibration-images", 4)
    done = dlv3deploy("build-engine", "--tune", "--fp32", "--int8", *images, "--workspace", work, "--backend", "onnxruntime")
    assert done.exit_code == 0, done.output
    (engine,) = work.glob("*.engine")
    facts = json.loads(dlv3deploy("inspect", engine, "--json").stdout)["manifest"]
    assert engine.name == f"model.{facts['precision']}.cpu.engine"
    assert {trial["precision"] for trial in facts["tuning"]} == {"fp32", "int8"}
    assert sum(trial["is_kept"] for trial in facts["tuning"]) == 1
    assert "FP32, no rewrites, blocked layout: " in done.stderr
    assert "INT8, image pooling folded, plain layout: " in done.stderr
    assert "--tune" in facts["command"] and "--int8 --fp32" in facts["command"]
    shown = dlv3deploy("inspect", engine).stdout
    assert f"the fastest of {len(facts['tuning'])} candidates, timed" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tune", "--rewrites", "none"), "--rewrites with --tune: tuning tries them all"),
        (("--device", "rtx4090"), "--device without --tune: is what tuning estimates engines for"),
        (("--tune", "--fp32", "--int8", "--to", "a.engine"), "--to with several precisions"),
        (("--tune", "--device", "gtx1080"), "device 'gtx1080'"),
        (("--fp32", "--int8"), "--int8 and --fp32: exclude each other"),
    ],
)
def test_what_contradicts_itself_is_refused(work: Path, arguments: tuple[str, ...], says: str) -> None:
    done = dlv3deploy("build-engine", "--workspace", work, "--backend", "onnxruntime", *arguments)
    assert done.exit_code == 1 and says in done.stderr
    assert not list(work.glob("*.engine"))
