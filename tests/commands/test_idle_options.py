"""Options that would have no effect are refused by name, not ignored; those of `train` have tests of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


def dlv3deploy(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments: object) -> str:
    done = dlv3deploy(*arguments)
    assert done.exit_code == 1, (done.stdout, done.stderr, done.exception)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("option", [("--images", "."), ("--calibration-images", "100")])
def test_calibration_without_int8_is_refused_not_ignored(work: Path, option: tuple[str, str]) -> None:
    assert f"{option[0]} without --int8" in refused("build-engine", "--workspace", work, *option)


@pytest.mark.parametrize(
    ("option", "takers"),
    [
        (("--target", "sm_89"), "tensorrt-rtx"),
        (("--workspace-mb", 64), "tensorrt or tensorrt-rtx"),
        (("--refittable",), "tensorrt or tensorrt-rtx"),
        (("--version-compatible",), "tensorrt"),
        (("--hardware-compatible",), "tensorrt"),
        (("--dla", 0), "tensorrt"),
    ],
)
def test_options_of_tensorrt_are_refused_with_another_backend(work: Path, option: tuple[object, ...], takers: str) -> None:
    """And only those are named that take them."""
    line = refused("build-engine", "--workspace", work, "--backend", "onnxruntime", *option)
    assert line.strip().endswith(f"error: {option[0]}: is for TensorRT; leave it out, or choose --backend {takers}"), line


def test_a_provider_is_onnx_runtimes(work: Path) -> None:
    command = ("build-engine", "--workspace", work, "--backend")
    assert "--provider: is for ONNX Runtime" in refused(*command, "tensorrt-rtx", "--provider", "cpu")
    assert "use one of cpu, cuda, tensorrt" in refused(*command, "onnxruntime", "--provider", "gpu")


def test_options_of_graphs_are_refused_beside_what_holds_none(work: Path) -> None:
    assert dlv3deploy("build-engine", "--workspace", work).exit_code == 0
    line = refused("inspect", work / "model.fp32.cpu.engine", "--all", "--classes", "voc")
    assert f"--all, --classes with {work / 'model.fp32.cpu.engine'}" in line
    assert dlv3deploy("inspect", work / "model.onnx", "--all", "--size", "64x96").exit_code == 0


def test_an_opacity_that_no_sink_shows_is_refused(work: Path, data: Path, tmp_path: Path) -> None:
    source = ("run", "--workspace", work, "--source", data / "val" / "images", "--opacity", 0.5)
    assert "--opacity: is of the class colours" in refused(*source, "--sink", "none", "--sink", f"{tmp_path}/masks/")
    assert dlv3deploy(*source, "--sink", "none", "--sink", tmp_path / "all.mp4").exit_code == 0
