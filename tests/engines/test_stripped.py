"""Engines without weights take those that they were compiled with, and no others.

TensorRT-RTX builds such engines on a GPU only, so what compiles and what takes weights is played here, and noted.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_models import HEIGHT, WIDTH, tiny_deeplab, tiny_spec, with_logits, write_tiny

from dlv3deploy.core.errors import CheckFailed, StaleArtefact, UserError
from dlv3deploy.core.graph import convolutions, embed_spec
from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.core.workspace import ENGINE_SUFFIX
from dlv3deploy.engines import build as building
from dlv3deploy.engines import open as opening
from dlv3deploy.engines import prepare, tensorrt_backend, tensorrt_engine
from dlv3deploy.engines.build import build
from dlv3deploy.engines.cache import EngineCache
from dlv3deploy.engines.dialect import TENSORRT_RTX
from dlv3deploy.engines.gpu import Gpu
from dlv3deploy.engines.manifest import Manifest, Timing
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from dlv3deploy.engines.open import checked_manifest, open_engine
from dlv3deploy.engines.prepare import prepared
from dlv3deploy.engines.request import EngineRequest, target_label
from dlv3deploy.engines.rewrites.rewrite import BY_CHANGE, NAMES
from dlv3deploy.engines.stripped import weights_for
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_engine import TensorRTEngine
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

pytest.importorskip("onnxruntime")
pytest.importorskip("tensorrt_rtx")
STRIPPED = TensorRTOptions(("8.9",), stripped=True)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The graphs that were compiled."""
    found: list[bytes] = []

    def compile_(_self: TensorRTBackend, model: bytes, engine: Path, _where: str) -> None:
        found.append(model)
        engine.write_bytes(b"a plan without weights")

    monkeypatch.setattr(TensorRTBackend, "build", compile_)
    monkeypatch.setattr(TensorRTBackend, "runs_here", lambda _self: True)
    gpu = Gpu("a GPU", "8.9", "1", shares_memory=False)
    for module in (tensorrt_backend, opening):
        monkeypatch.setattr(module, "find_gpu", lambda: gpu)
    return found


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """The weights that engines were opened with."""
    found: list[bytes | None] = []
    monkeypatch.setattr(building, "_timed", lambda backend, *_: (found.append(backend.weights), Timing(1.0, 1.0, 3))[1])
    monkeypatch.setattr(TensorRTBackend, "open", lambda self, *_: found.append(self.weights))
    return found


def outputs(model: onnx.ModelProto) -> np.ndarray:
    batch = np.random.default_rng(0).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)
    with OnnxRuntimeEngine(model.SerializeToString(), tiny_spec(), "it") as engine:
        return engine.infer(batch)


def stripped(folder: Path, **fields: Any) -> EngineRequest:
    source = write_tiny(folder / "model.onnx")
    return EngineRequest(
        source, source, tiny_spec(), **{"precision": "fp32", "options": STRIPPED, **fields}, backend="tensorrt-rtx"
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("rewrites", [(), ("dead-taps", "image-pooling", "sub-grids"), ("regions",)])
def test_it_is_opened_with_the_very_graph_that_was_compiled(
    tmp_path: Path, compiled: list[bytes], taken: list[bytes | None], precision: str, rewrites: tuple[str, ...]
) -> None:
    request = stripped(tmp_path, precision=precision, rewrites=rewrites)
    engine = tmp_path / "work" / f"model{ENGINE_SUFFIX}"
    manifest = build(request, engine, EngineCache(tmp_path / "cache"))
    done = prepared(request)
    assert manifest.rewrites == done.names and (done.names or rewrites != ("dead-taps", "image-pooling", "sub-grids"))
    open_engine(engine)
    (graph,) = compiled
    assert taken == [graph, graph] and engine.read_bytes() == b"a plan without weights"
    again = onnx.load_from_string(graph)
    if precision == "bf16":  # which ONNX Runtime cannot run
        plain, found = ([layer.macs for layer in convolutions(model, HEIGHT, WIDTH)] for model in (done.model, again))
        assert plain == found
    else:
        plain, found = (outputs(model) for model in (done.model, again))
        np.testing.assert_allclose(found, plain, atol=1e-5 * np.abs(plain).max())


@pytest.mark.usefixtures("compiled", "taken")
def test_a_file_that_changes_while_it_is_read_makes_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, again = stripped(tmp_path), building.made_again

    def changed_meanwhile(*arguments: Any) -> Any:
        write_tiny(request.source, seed=3)
        return again(*arguments)

    monkeypatch.setattr(building, "made_again", changed_meanwhile)
    with pytest.raises(CheckFailed, match="was changed while an engine was being built from it"):
        build(request, tmp_path / f"model{ENGINE_SUFFIX}", EngineCache(tmp_path / "cache"))
    assert not list((tmp_path / "cache").glob("*.engine"))


def test_plans_without_weights_have_names_of_their_own() -> None:
    assert target_label("tensorrt-rtx", STRIPPED, None) == "tensorrt-rtx-89-stripped"


def test_engines_with_weights_are_opened_as_they_are(tmp_path: Path, compiled: list[bytes], taken: list[bytes | None]) -> None:
    engine = tmp_path / f"model{ENGINE_SUFFIX}"
    manifest = build(stripped(tmp_path, options=TensorRTOptions(("8.9",))), engine)
    open_engine(engine)
    assert taken == [None, None] and manifest.graph_sha256 == "" and compiled


def test_a_model_whose_last_upsampling_went_keeps_its_weights(
    tmp_path: Path, compiled: list[bytes], taken: list[bytes | None]
) -> None:
    """The manifest's spec says what the engine returns, which is not what the file does."""
    source, spec = tmp_path / "model.onnx", replace(tiny_spec(), output=OutputSpec("logits"))
    model = with_logits(tiny_deeplab())
    embed_spec(model, spec)
    source.write_bytes(model.SerializeToString())
    request = EngineRequest(source, source, spec, "fp32", "tensorrt-rtx", STRIPPED, rewrites=("head",))
    manifest = build(request, tmp_path / f"model{ENGINE_SUFFIX}")
    assert manifest.spec.output.kind == "scores"
    open_engine(tmp_path / f"model{ENGINE_SUFFIX}")
    assert taken == [*compiled, *compiled]


@pytest.mark.usefixtures("compiled", "taken")
def test_without_its_file_or_with_other_libraries_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, engine = stripped(tmp_path, command="the command"), tmp_path / f"model{ENGINE_SUFFIX}"
    build(request, engine)
    manifest = checked_manifest(engine)
    simplified = prepare.simplified

    def otherwise(model: onnx.ModelProto) -> onnx.ModelProto:
        changed = simplified(model)
        changed.graph.initializer[0].raw_data = changed.graph.initializer[0].raw_data[::-1]
        return changed

    monkeypatch.setattr(prepare, "simplified", otherwise)
    with pytest.raises(StaleArtefact, match="sha256 of the graph that its weights are from.*rebuild with: the command"):
        weights_for(engine, manifest)
    request.source.unlink()
    with pytest.raises(UserError, match=r"no weights of its own, and .*model\.onnx, which has them, is gone; put"):
        open_engine(engine)


def test_weights_that_an_engine_does_not_take_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of TensorRT's bindings, whose engine refuses them."""
    engine = tmp_path / f"model{ENGINE_SUFFIX}"
    engine.write_bytes(b"a plan")
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda _plan: SimpleNamespace(refittable=True))
    reader = SimpleNamespace(refit_from_bytes=lambda _model: False, num_errors=0)
    logger: Any = lambda _severity: None  # noqa: E731 (a class is stood for)
    logger.ERROR = "error"
    bindings = SimpleNamespace(
        __version__="10.3.0",
        Logger=logger,
        Runtime=lambda _logger: runtime,
        Refitter=lambda _engine, _logger: None,
        OnnxParserRefitter=lambda _refitter, _logger: reader,
    )
    monkeypatch.setattr(tensorrt_engine, "find_gpu", lambda: Gpu("a GPU", "8.9", "1", shares_memory=False))
    monkeypatch.setattr(tensorrt_engine, "load_dialect", lambda _dialect: bindings)
    monkeypatch.setattr(tensorrt_engine, "runs_on", lambda *_: True)
    with pytest.raises(CheckFailed, match=r"does not take the weights of its ONNX file \(its weights do not fit\)"):
        TensorRTEngine(TENSORRT_RTX, engine, tiny_spec(), STRIPPED, b"model")


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"precision": "int8"}, "--int8 with --strip-plan"),
        ({"options": replace(STRIPPED, refittable=True)}, "--strip-plan with --refittable"),
        ({}, "--strip-plan: such engines are built on a GPU, and this machine has none"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(tmp_path: Path, fields: dict[str, Any], refusal: str) -> None:
    with pytest.raises(UserError, match=refusal):
        build(stripped(tmp_path, **fields), tmp_path / f"model{ENGINE_SUFFIX}")
    assert not (tmp_path / f"model{ENGINE_SUFFIX}").exists()


def test_every_rewrite_can_be_named_by_what_it_changed() -> None:
    assert set(BY_CHANGE.values()) == set(NAMES)


@pytest.mark.gpu
def test_a_stripped_engine_computes_what_its_file_does(tmp_path: Path) -> None:
    if not TensorRTBackend(TENSORRT_RTX).runs_here():
        pytest.skip("TensorRT-RTX does not run on this GPU")
    request, engine = stripped(tmp_path, options=TensorRTOptions(stripped=True)), tmp_path / f"model{ENGINE_SUFFIX}"
    build(request, engine)
    whole = tmp_path / f"whole{ENGINE_SUFFIX}"
    build(replace(request, options=TensorRTOptions()), whole)
    assert engine.stat().st_size < whole.stat().st_size and Manifest.read(engine).graph_sha256
    batch = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    with open_engine(engine) as opened, OnnxRuntimeEngine.open(request.source, tiny_spec()) as plain:
        np.testing.assert_allclose(opened.infer(batch), plain.infer(batch), atol=1e-2)
