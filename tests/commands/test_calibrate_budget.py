"""`dlv3deploy calibrate --budget-miou`: what a budget leaves in INT8, and what it says of mixtures."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")


def calibrate(work: Path, images: Path, budget: float, *more: object) -> Result:
    """2-bit weights and min-max: a model for which a budget has something to do. Labels there are none."""
    coarse = "--method", "min-max", "--weight-bits", 2
    words = ["calibrate", "--workspace", work, "--no-report", "--images", images, *coarse, "--budget-miou", budget, *more]
    return CliRunner().invoke(app, [str(word) for word in words])


def table_of(work: Path) -> dict:
    return json.loads((work / "calibration.json").read_text(encoding="utf-8"))


def test_a_wide_budget_keeps_every_convolution_in_int8(work: Path, images: Path) -> None:
    done = calibrate(work, images, 1)
    assert done.exit_code == 0, done.output
    assert table_of(work)["mixtures"] == []
    assert "within the budget of 1" in done.stderr and "own masks of 6 images" in done.stderr


def test_a_tight_budget_leaves_some_in_floating_point_and_tells_what_every_mixture_loses(work: Path, images: Path) -> None:
    assert calibrate(work, images, 1).exit_code == 0
    before = set(table_of(work)["kept_float"])
    done = calibrate(work, images, 0.1)
    assert done.exit_code == 0, done.output
    more = set(table_of(work)["kept_float"]) - before
    drops = {point["kept"]: point["drop"] for point in table_of(work)["mixtures"]}
    assert drops[0] > 0.1 >= drops[len(more)]
    assert drops[len(more) - 1] > 0.1  # one fewer would not do
    (said,) = (line for line in done.stderr.splitlines() if line.startswith(f"with {len(more)} more convolution"))
    assert said.endswith(f": {', '.join(sorted(more)[:5])}{' …' * (len(more) > 5)}")
    graph = onnx.load(str(work / "model.int8.onnx")).graph
    rounded = {node.name for node in graph.node if node.op_type == "Conv" and node.input[1].endswith("/dequantized")}
    assert rounded and not rounded & more


def test_whoever_judges_is_part_of_what_a_calibration_depends_on(work: Path, images: Path, scenes: Path) -> None:
    """Labels are drawn scenes', which the tiny network knows nothing of; its own masks it knows by heart."""
    assert calibrate(work, images, 0.9).exit_code == 0
    assert "already, and is kept" in calibrate(work, images, 0.9).stderr
    done = calibrate(work, images, 0.9, "--data", scenes)
    assert "is kept" not in done.stderr and "against the labels of" in done.stderr
    assert "already, and is kept" in calibrate(work, images, 0.9, "--data", scenes).stderr


def test_a_budget_that_cannot_be_met_ends_with_3_and_older_files_stay(work: Path, images: Path) -> None:
    """One convolution is left to be INT8, and one always stays it."""
    assert calibrate(work, images, 1).exit_code == 0
    before = {path: path.read_bytes() for path in work.iterdir()}
    others = ("stem", "inner", "outer", "pointwise", "atrous", "projection")
    done = calibrate(work, images, 0, *(word for name in others for word in ("--keep-fp16", name)))
    assert done.exit_code == 3
    assert "error: --budget-miou 0 cannot be met: the best mixture loses 0." in done.stderr
    assert {path: path.read_bytes() for path in work.iterdir()} == before
