"""`build-engine --rewrites`: what the manifest says of it, and that the engine is the same function."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import HEIGHT, WIDTH, tiny_spec
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine

pytest.importorskip("onnxruntime")


def build(work: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["build-engine", "--workspace", str(work), *(str(word) for word in arguments)])


def manifest(engine: Path) -> dict:
    return json.loads(engine.with_name(f"{engine.name}.json").read_text(encoding="utf-8"))


def test_onnx_runtime_s_engines_are_not_rewritten_unless_asked_to(work: Path) -> None:
    engine = work / "model.fp32.cpu.engine"
    batch = np.random.default_rng(0).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)
    results = []
    for options, expected in (((), []), (("--rewrites", "image-pooling,regions"), ["image pooling folded"])):
        done = build(work, "--backend", "onnxruntime", *options)
        assert done.exit_code == 0, done.output
        assert manifest(engine)["rewrites"] == expected
        results.append(OnnxRuntimeEngine.open(engine, tiny_spec()).infer(batch))
    np.testing.assert_allclose(results[1], results[0], atol=1e-5 * np.abs(results[0]).max())
    assert "--rewrites image-pooling,regions" in manifest(engine)["command"]


@pytest.mark.parametrize("precision", ["--fp32", "--fp16"])
def test_tensorrt_s_engines_are_rewritten(work: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    for options, expected in (((), ["image pooling folded"]), (("--rewrites", "none"), [])):
        done = build(work, "--backend", "tensorrt-rtx", precision, *options)
        assert done.exit_code == 0, done.output
        assert manifest(work / f"model.{precision[2:]}.tensorrt-rtx.engine")["rewrites"] == expected


def test_an_unknown_rewrite_builds_nothing(work: Path) -> None:
    refused = build(work, "--rewrites", "faster")
    assert refused.exit_code == 1
    assert "faster is unknown; use none alone, or some of dead-taps, image-pooling, regions, sub-grids, head" in refused.stderr
    assert not list(work.glob("*.engine*"))
