"""`dlv3deploy build-engine --export`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import CLASSES, HEIGHT, WIDTH, tiny_deeplab, tiny_spec, with_logits
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.core.graph import embed_spec
from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.engines.manifest import Manifest

pytest.importorskip("onnxruntime")


def build(work: Path, *arguments: object) -> Result:
    words = ["build-engine", "--workspace", work, "--backend", "onnxruntime", *arguments]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_model_repository_lies_in_the_workspace(work: Path) -> None:
    done = build(work, "--export", "triton")
    assert done.exit_code == 0, done.output
    assert f"tritonserver --model-repository {work / 'triton'}" in done.stderr
    assert sorted(str(p.relative_to(work / "triton")) for p in (work / "triton").rglob("*") if p.is_file()) == [
        "model/1/model.onnx",
        "model/config.pbtxt",
        "model/labels.txt",
    ]


def test_what_another_program_reads_stays_as_it_is(work: Path) -> None:
    """An engine of its own may leave the upsampling to postprocessing; Triton's clients have none."""
    model = with_logits(tiny_deeplab())
    embed_spec(model, replace(tiny_spec(), output=OutputSpec("logits")))
    (work / "model.onnx").write_bytes(model.SerializeToString())
    assert build(work, "--export", "triton").exit_code == 0
    assert f"dims: [ 1, {CLASSES}, {HEIGHT}, {WIDTH} ]" in (work / "triton" / "model" / "config.pbtxt").read_text()
    assert Manifest.read(work / "model.fp32.cpu.engine").rewrites == ()
    refused = build(work, "--export", "triton", "--rewrites", "head")
    assert refused.exit_code == 1
    assert "--rewrites head with --export triton: has the model return scores to be upsampled" in refused.stderr


def test_deepstream_gets_the_float_graph_or_the_implicit_one_with_its_cache(work: Path, data: Path, tmp_path: Path) -> None:
    assert build(work, "--export", "deepstream").exit_code == 0
    assert sorted(p.name for p in (work / "deepstream").iterdir()) == ["config_infer.txt", "labels.txt", "nvinfer.onnx"]
    images = ("--int8", "--images", data / "train" / "images", "--calibration-images", 4)
    done = build(work, *images, "--export", "deepstream", "--export-to", tmp_path / "there")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "there" / "calibration.cache").read_text().startswith("TRT-")
    assert "int8-calib-file=calibration.cache" in (tmp_path / "there" / "config_infer.txt").read_text()
    assert b"QuantizeLinear" not in (tmp_path / "there" / "nvinfer.onnx").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--export", "gstreamer"), "use one of triton, deepstream"),
        (("--export", "deepstream", "--export-to", "WORK"), "holds files, and none is a config_infer.txt"),
        (
            ("--export", "deepstream", "--backend", "tensorrt-rtx", "--bf16"),
            "--bf16 with --export deepstream: nvinfer has no such mode",
        ),
        (("--export", "triton", "--backend", "tensorrt-rtx"), "Triton runs no engines of tensorrt-rtx"),
        (("--export-to", "there"), "--export-to without --export: is where an export goes"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_built(work: Path, arguments: tuple[str, ...], says: str) -> None:
    before = (work / "model.onnx").read_bytes()
    done = build(work, *(str(work) if word == "WORK" else word for word in arguments))
    assert done.exit_code == 1 and says in done.stderr
    assert not list(work.glob("*.engine")) and (work / "model.onnx").read_bytes() == before


def test_an_export_may_be_made_again(work: Path) -> None:
    for _ in range(2):
        assert build(work, "--export", "triton").exit_code == build(work, "--export", "deepstream").exit_code == 0
