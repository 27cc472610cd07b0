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
from dlv3deploy.core.workspace import manifest_path
from dlv3deploy.engines import build as building
from dlv3deploy.engines import dialect, tensorrt_backend
from dlv3deploy.engines.build import build
from dlv3deploy.engines.cache import EngineCache
from dlv3deploy.engines.dialect import TENSORRT, TENSORRT_RTX
from dlv3deploy.engines.gpu import Gpu
from dlv3deploy.engines.manifest import Manifest, Timing
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeBackend
from dlv3deploy.engines.refit import graph_sha256, require_outputs
from dlv3deploy.engines.request import EngineRequest
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
    monkeypatch.setattr(building, "require_outputs", lambda *_: None)
    return found


@pytest.fixture
def request_(tmp_path: Path) -> EngineRequest:
    source = write_tiny(tmp_path / "model.onnx")
    options = TensorRTOptions(("8.9",), refittable=True)
    return EngineRequest(source, source, tiny_spec(), "fp32", "tensorrt-rtx", options)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


def test_new_weights_go_into_the_engine_that_is_there(request_: EngineRequest, refits: list[bytes], cache: EngineCache) -> None:
    engine = request_.source.with_suffix(".engine")
    first = build(request_, engine, cache)
    compiled = engine.read_bytes()
    write_tiny(request_.source, seed=3)
    second = build(request_, engine, cache)
    assert refits == [compiled] and engine.read_bytes().startswith(b"refitted ")
    assert second.graph_sha256 == first.graph_sha256 != ""
    assert second.onnx_sha256 != first.onnx_sha256 and Manifest.read(engine).engine_sha256 == second.engine_sha256


@pytest.mark.parametrize(
    "what", ["another graph", "another precision", "a changed engine", "a changed manifest", "not refittable", "no cache"]
)
def test_anything_else_is_built(request_: EngineRequest, refits: list[bytes], cache: EngineCache, what: str) -> None:
    engine = request_.source.with_suffix(".engine")
    build(replace(request_, options=TensorRTOptions(("8.9",))) if what == "not refittable" else request_, engine, cache)
    if what == "another precision":
        request_ = replace(request_, precision="fp16")
    elif what == "a changed engine":
        engine.write_bytes(engine.read_bytes() + b"!")
    elif what == "a changed manifest":
        text = manifest_path(engine).read_text()
        manifest_path(engine).write_text(text.replace('"p50_ms": 1.0', '"p50_ms": 0.5'))
        assert manifest_path(engine).read_text() != text
    write_tiny(request_.source, seed=3)
    if what == "another graph":
        model = onnx.load(request_.source)
        model.graph.node[-1].name = "renamed"
        request_.source.write_bytes(model.SerializeToString())
    build(request_, engine, None if what == "no cache" else cache)
    assert not refits and not engine.read_bytes().startswith(b"refitted ")


def test_an_engine_that_does_not_take_them_is_built_anew(
    request_: EngineRequest,
    refits: list[bytes],
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = request_.source.with_suffix(".engine")
    build(request_, engine, cache)

    def refuse(*_: object) -> None:
        raise CheckFailed("its weights do not fit")

    monkeypatch.setattr(TensorRTBackend, "refit", refuse)
    write_tiny(request_.source, seed=3)
    manifest = build(request_, engine, cache)
    assert "does not take new weights (its weights do not fit), and is built anew" in capsys.readouterr().err
    assert manifest.onnx_sha256 == Manifest.read(engine).onnx_sha256 and not refits


def test_without_a_gpu_it_is_refused_before_anything_is_built(request_: EngineRequest) -> None:
    """TensorRT-RTX 1.7 compiles refittable engines with CUDA, on whatever machine."""
    pytest.importorskip("tensorrt_rtx")
    engine = request_.source.with_suffix(".engine")
    with pytest.raises(UserError, match="--refittable: such engines are built on a GPU, and this machine has none"):
        build(request_, engine)
    assert not engine.exists()


class Stub:
    """In place of TensorRT's bindings of a version: it has the names of its API, and notes what is asked for."""

    def __init__(self, api: dict[str, list[str]], fits: bool = True, refittable: bool = True) -> None:
        self.asked: list[str] = []
        flags = api["SerializationFlag"]
        config = SimpleNamespace(
            set_flag=lambda flag: self.asked.append(f"set {flag}"), clear_flag=lambda flag: self.asked.append(f"clear {flag}")
        )
        self.engine = SimpleNamespace(
            refittable=refittable,
            create_serialization_config=lambda: config,
            serialize_with_config=lambda _config: b"plan",
            serialize=lambda: b"plan",
        )
        reader = SimpleNamespace(
            refit_from_bytes=lambda model: (self.asked.append(model.decode()), fits)[1],
            num_errors=0 if fits else 1,
            get_error=lambda _index: SimpleNamespace(desc=lambda: "stem.weight is of another shape"),
        )
        self.module = SimpleNamespace(
            Refitter=lambda _engine, _logger: SimpleNamespace(refit_cuda_engine=lambda: True),
            OnnxParserRefitter=lambda _refitter, _logger: reader,
            SerializationFlag=SimpleNamespace(**{flag: flag for flag in flags}),
        )


@pytest.fixture(params=["10.3.0", "10.16.1", "11.4.0", "rtx-1.7.1"])
def api(shared: Path, request: pytest.FixtureRequest) -> dict[str, list[str]]:
    return json.loads((shared / "tensorrt-api" / f"{request.param}.json").read_text())


@pytest.mark.real_data
def test_a_refitted_engine_can_be_refitted_again_where_its_version_keeps_that(api: dict[str, list[str]]) -> None:
    stub = Stub(api)
    dialect.give_weights(stub.module, stub.engine, None, b"model")
    assert dialect.with_weights(stub.module, stub.engine) == b"plan"
    keeps = ["clear EXCLUDE_WEIGHTS", "set INCLUDE_REFIT"] if "INCLUDE_REFIT" in api["SerializationFlag"] else []
    assert stub.asked == ["model", *keeps]


@pytest.mark.real_data
def test_what_does_not_fit_is_said_and_nothing_ends_in_a_traceback(api: dict[str, list[str]]) -> None:
    stub = Stub(api, fits=False)
    with pytest.raises(CheckFailed, match=r"stem\.weight is of another shape"):
        dialect.give_weights(stub.module, stub.engine, None, b"model")
    stub = Stub(api, refittable=False)
    with pytest.raises(CheckFailed, match="it was refitted before"):
        dialect.give_weights(stub.module, stub.engine, None, b"model")
    stub = Stub(api)

    def refuse(*_: object) -> None:
        raise TypeError("factory function returned nullptr")

    stub.module.Refitter = refuse
    with pytest.raises(CheckFailed, match="nullptr"):
        dialect.give_weights(stub.module, stub.engine, None, b"model")


def test_outputs_of_a_refitted_engine_are_held_against_the_graph(tmp_path: Path) -> None:
    """On ONNX Runtime's engines, which stand for refitted ones."""
    backend = OnnxRuntimeBackend()
    for seed, fits in ((0, True), (3, False)):
        backend.build(tiny_deeplab(seed).SerializeToString(), tmp_path / "model.engine", "tiny")
        if fits:
            require_outputs(backend, tmp_path / "model.engine", tiny_spec(), tiny_deeplab())
        else:
            with pytest.raises(CheckFailed, match="its outputs are"):
                require_outputs(backend, tmp_path / "model.engine", tiny_spec(), tiny_deeplab())


def test_int8_does_not_go_with_it(request_: EngineRequest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--int8 with --refittable: new scales are a new graph"):
        build(replace(request_, precision="int8"), tmp_path / "model.engine")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("option", "options"),
    [("--refittable", TensorRTOptions(refittable=True)), ("--strip-plan", TensorRTOptions(stripped=True))],
)
def test_tensorrt_8_has_no_refitter_for_onnx(shared: Path, option: str, options: TensorRTOptions) -> None:
    api = json.loads((shared / "tensorrt-api" / "8.6.1.json").read_text())
    module: Any = SimpleNamespace(__version__="8.6.1", **dict.fromkeys(api))
    with pytest.raises(UserError, match=f"{option}: needs TensorRT 10.0 or newer"):
        dialect.require_options(TENSORRT, module, options)


@pytest.mark.gpu
def test_a_refitted_engine_computes_with_the_new_weights(request_: EngineRequest) -> None:
    from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine
    from dlv3deploy.engines.open import open_engine

    if not TensorRTBackend(TENSORRT_RTX).runs_here():
        pytest.skip("TensorRT-RTX does not run on this GPU")
    request = replace(request_, options=TensorRTOptions(refittable=True))
    engine = request.source.with_suffix(".engine")
    for seed in (1, 2, 3):  # more than once
        write_tiny(request.source, seed=seed)
        build(request, engine, EngineCache(engine.parent / "cache"))
    batch = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    with open_engine(engine) as opened, OnnxRuntimeEngine.open(request.source, tiny_spec()) as plain:
        np.testing.assert_allclose(opened.infer(batch), plain.infer(batch), atol=1e-2)
