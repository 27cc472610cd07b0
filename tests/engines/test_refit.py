"""New weights in the engine that is there: only of the very same graph, and never at the cost of the engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_models import tiny_deeplab, tiny_spec, write_tiny

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.engines import build as building
from dlv3deploy.engines import dialect, tensorrt_backend
from dlv3deploy.engines.build import EngineRequest, build
from dlv3deploy.engines.dialect import TENSORRT, TENSORRT_RTX
from dlv3deploy.engines.gpu import Gpu
from dlv3deploy.engines.manifest import Manifest, Timing
from dlv3deploy.engines.refit import graph_sha256
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

pytest.importorskip("onnxruntime")


def changed(name: str) -> onnx.ModelProto:
    model = tiny_deeplab()
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, name))
    return model


def test_weights_and_biases_may_differ_and_nothing_else() -> None:
    plain = graph_sha256(tiny_deeplab())
    assert graph_sha256(tiny_deeplab(seed=5)) == graph_sha256(changed("stem.weight")) == plain
    assert graph_sha256(changed("repeats")) != plain  # sizes of what image pooling is spread to
    other = tiny_deeplab()
    other.graph.node[0].attribute[0].CopyFrom(onnx.helper.make_attribute("dilations", [2, 2]))
    assert graph_sha256(other) != plain
    wider = tiny_deeplab()
    (bias,) = (tensor for tensor in wider.graph.initializer if tensor.name == "scores.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias).astype(np.float16), bias.name))
    assert graph_sha256(wider) != plain


@pytest.fixture
def refits(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What earlier engines held that took new weights. Stands for a GPU, without which TensorRT-RTX builds no such engine."""
    pytest.importorskip("tensorrt_rtx")
    found: list[bytes] = []

    def compile_(_self: TensorRTBackend, model: bytes, engine: Path, _where: str) -> None:
        engine.write_bytes(b"compiled " + model)

    def refit(_self: TensorRTBackend, earlier: Path, model: bytes, engine: Path) -> None:
        found.append(earlier.read_bytes())
        engine.write_bytes(b"refitted " + model)

    monkeypatch.setattr(TensorRTBackend, "build", compile_)
    monkeypatch.setattr(TensorRTBackend, "refit", refit)
    monkeypatch.setattr(TensorRTBackend, "runs_here", lambda _self: True)
    monkeypatch.setattr(tensorrt_backend, "find_gpu", lambda: Gpu("a GPU", "8.9", "1", shares_memory=False))
    monkeypatch.setattr(building, "_timed", lambda *_: Timing(1.0, 1.0, 3))
    return found


@pytest.fixture
def request_(tmp_path: Path) -> EngineRequest:
    source = write_tiny(tmp_path / "model.onnx")
    options = TensorRTOptions(("8.9",), refittable=True)
    return EngineRequest(source, source, tiny_spec(), "fp32", "tensorrt-rtx", options)


def test_new_weights_go_into_the_engine_that_is_there(request_: EngineRequest, refits: list[bytes]) -> None:
    engine = request_.source.with_suffix(".engine")
    first = build(request_, engine)
    compiled = engine.read_bytes()
    write_tiny(request_.source, seed=3)
    second = build(request_, engine)
    assert refits == [compiled] and engine.read_bytes().startswith(b"refitted ")
    assert second.graph_sha256 == first.graph_sha256 != ""
    assert second.onnx_sha256 != first.onnx_sha256 and Manifest.read(engine).engine_sha256 == second.engine_sha256


@pytest.mark.parametrize("what", ["another graph", "another precision", "a changed engine", "not refittable", "no engine"])
def test_anything_else_is_built(request_: EngineRequest, refits: list[bytes], what: str) -> None:
    engine = request_.source.with_suffix(".engine")
    build(replace(request_, options=TensorRTOptions(("8.9",))) if what == "not refittable" else request_, engine)
    if what == "another precision":
        request_ = replace(request_, precision="fp16")
    elif what == "a changed engine":
        engine.write_bytes(engine.read_bytes() + b"!")
    elif what == "no engine":
        engine.unlink()
    write_tiny(request_.source, seed=3)
    if what == "another graph":
        model = onnx.load(request_.source)
        model.graph.node[-1].name = "renamed"
        request_.source.write_bytes(model.SerializeToString())
    build(request_, engine)
    assert not refits and not engine.read_bytes().startswith(b"refitted ")


def test_an_engine_that_does_not_take_them_is_built_anew(
    request_: EngineRequest, refits: list[bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = request_.source.with_suffix(".engine")
    build(request_, engine)

    def refuse(*_: object) -> None:
        raise CheckFailed("its weights do not fit")

    monkeypatch.setattr(TensorRTBackend, "refit", refuse)
    write_tiny(request_.source, seed=3)
    manifest = build(request_, engine)
    assert "does not take new weights (its weights do not fit), and is built anew" in capsys.readouterr().err
    assert manifest.onnx_sha256 == Manifest.read(engine).onnx_sha256 and not refits


def test_without_a_gpu_it_is_refused_before_anything_is_built(request_: EngineRequest) -> None:
    """TensorRT-RTX 1.7 compiles refittable engines with CUDA, on whatever machine."""
    pytest.importorskip("tensorrt_rtx")
    engine = request_.source.with_suffix(".engine")
    with pytest.raises(UserError, match="--refittable: such engines are built on a GPU, and this machine has none"):
        build(request_, engine)
    assert not engine.exists()


@pytest.mark.real_data
@pytest.mark.parametrize("version", ["10.3.0", "10.16.1", "11.4.0", "rtx-1.7.1"])
@pytest.mark.parametrize("fits", [True, False])
def test_tensorrt_s_own_refitter_is_asked(shared: Path, version: str, fits: bool) -> None:
    """On stand-ins that have the names of each version's API."""
    api = json.loads((shared / "tensorrt-api" / f"{version}.json").read_text())
    assert {"refit_cuda_engine"} <= set(api["Refitter"]) and {"refit_from_bytes"} <= set(api["OnnxParserRefitter"])
    asked: list[bytes] = []

    def refit_from_bytes(model: bytes) -> bool:
        asked.append(model)
        return fits

    module = SimpleNamespace(
        Refitter=lambda _engine, _logger: SimpleNamespace(refit_cuda_engine=lambda: True),
        OnnxParserRefitter=lambda _refitter, _logger: SimpleNamespace(refit_from_bytes=refit_from_bytes),
    )
    engine = SimpleNamespace(serialize=lambda: b"plan")
    if fits:
        assert dialect.refit(module, engine, None, b"model") == b"plan"
    else:
        with pytest.raises(CheckFailed):
            dialect.refit(module, engine, None, b"model")
    assert asked == [b"model"]


@pytest.mark.real_data
def test_tensorrt_8_has_no_refitter_for_onnx(shared: Path) -> None:
    api = json.loads((shared / "tensorrt-api" / "8.6.1.json").read_text())
    module: Any = SimpleNamespace(__version__="8.6.1", **dict.fromkeys(api))
    with pytest.raises(UserError, match="--refittable: needs TensorRT 10.0 or newer"):
        dialect.require_options(TENSORRT, module, TensorRTOptions(refittable=True))


@pytest.mark.gpu
def test_a_refitted_engine_computes_with_the_new_weights(request_: EngineRequest) -> None:
    from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine
    from dlv3deploy.engines.open import open_engine

    if not TensorRTBackend(TENSORRT_RTX).runs_here():
        pytest.skip("TensorRT-RTX does not run on this GPU")
    request = replace(request_, options=TensorRTOptions(refittable=True))
    engine = request.source.with_suffix(".engine")
    build(request, engine)
    write_tiny(request.source, seed=3)
    build(request, engine)
    batch = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    with open_engine(engine) as opened, OnnxRuntimeEngine.open(request.source, tiny_spec()) as plain:
        np.testing.assert_allclose(opened.infer(batch), plain.infer(batch), atol=1e-2)
