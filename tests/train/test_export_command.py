"""`dlv3deploy export`: from the workspace's checkpoint to its ONNX file, and exit codes for what cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_runs import lively_model, small_spec
from torch import nn
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.core.graph import embedded_spec, load_onnx, ports
from dlv3deploy.train.checkpoint import save_checkpoint


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def workspace(lively_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copy(lively_checkpoint, tmp_path / "model.safetensors")
    return tmp_path


def test_without_options_the_workspaces_model_is_exported(workspace: Path) -> None:
    result = export("--workspace", workspace)
    assert result.exit_code == 0, result.output
    assert (
        result.stdout == ""
        and f"wrote {workspace / 'model.onnx'}: 64×96 to scores, output stride 16, opset 17" in result.stderr
    )
    build, calibrate = (f"dlv3deploy {command} --workspace {workspace}" for command in ("build-engine", "calibrate"))
    assert "ONNX Runtime" in result.stderr and f"next: {build}, or for INT8: {calibrate}\n" in result.stderr
    model = load_onnx(workspace / "model.onnx")
    spec = embedded_spec(model, "")
    assert spec is not None and spec.output.kind == "scores" and set(spec.parents) == {"checkpoint"}


def test_the_output_stride_that_was_asked_for_is_said(workspace: Path) -> None:
    result = export("--workspace", workspace, "--output-stride", "8")
    assert result.exit_code == 0, result.output
    assert "64×96 to scores, output stride 8, opset 17" in result.stderr


def test_every_option_is_in_the_file(workspace: Path) -> None:
    target = workspace / "deep" / "other.onnx"
    options = ["--output", "mask", "--size", "32x49", "--dynamic-size", "--dynamic-batch", "--opset", "13"]
    result = export(workspace / "model.safetensors", "--to", target, *options)
    assert result.exit_code == 0, result.output
    model = load_onnx(target)
    given, found = ports(model, "")
    assert given.shape == (None, 3, None, None) and found.name == "mask" and found.is_integer
    spec = embedded_spec(model, "")
    assert spec is not None and (spec.input.height, spec.input.width) == (32, 49)
    assert model.opset_import[0].version == 13


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--output pixels", "--output 'pixels': is unknown; use one of scores, logits, mask"),
        ("--size 60x96", "use 48 or 49 or 64"),
        ("--size wide", "size 'wide': is no HEIGHTxWIDTH"),
        ("--opset 9", "opset 9: is outside 11 to 20"),
        ("missing.safetensors", "missing.safetensors: does not exist; make one with: dlv3deploy train DATA"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_1(workspace: Path, options: str, says: str) -> None:
    result = export("--workspace", workspace, *options.split())
    assert result.exit_code == 1 and result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ") and says in line
    assert not (workspace / "model.onnx").exists()


def test_an_empty_workspace_says_how_to_fill_it(tmp_path: Path) -> None:
    result = export("--workspace", tmp_path)
    assert result.exit_code == 1 and f"make one with: dlv3deploy train DATA --workspace {tmp_path}\n" in result.stderr


def test_a_checkpoint_is_not_overwritten_by_its_own_export(workspace: Path) -> None:
    checkpoint = workspace / "model.safetensors"
    before = checkpoint.read_bytes()
    result = export("--workspace", workspace, "--to", workspace / "." / "model.safetensors")
    assert result.exit_code == 1 and "end it in .onnx" in result.stderr
    assert checkpoint.read_bytes() == before


def test_bad_usage_is_exit_2(workspace: Path) -> None:
    assert export("--workspace", workspace, "--no-such-option").exit_code == 2
    assert export("--workspace", workspace, "--opset", "new").exit_code == 2


def test_weights_that_are_not_finite_are_exit_3(tmp_path: Path) -> None:
    model = lively_model()
    nn.init.constant_(model.classifier[4].bias, float("nan"))
    save_checkpoint(tmp_path / "model.safetensors", model, small_spec())
    (tmp_path / "model.onnx").write_bytes(b"the export of last week")
    result = export("--workspace", tmp_path)
    assert result.exit_code == 3 and "classifier.4.bias holds values that are not finite" in result.stderr
    assert (tmp_path / "model.onnx").read_bytes() == b"the export of last week"
