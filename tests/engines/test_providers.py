"""Which of ONNX Runtime's providers runs a model. CUDA and TensorRT need a GPU: what ONNX Runtime has of them is played."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from tiny_models import tiny_deeplab, tiny_spec, with_logits, write_tiny

from dlv3deploy.core.cache_folder import cache_folder
from dlv3deploy.core.errors import StaleArtefact, UserError
from dlv3deploy.core.workspace import manifest_path
from dlv3deploy.engines import onnxruntime_engine
from dlv3deploy.engines import providers as choosing
from dlv3deploy.engines.build import build
from dlv3deploy.engines.gpu import Gpu
from dlv3deploy.engines.manifest import Manifest
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeBackend, OnnxRuntimeEngine
from dlv3deploy.engines.open import open_engine
from dlv3deploy.engines.open_batch import with_open_batch
from dlv3deploy.engines.prepare import layer_precision
from dlv3deploy.engines.providers import CHANNELS_LAST, COMPILED, CPU, CUDA, PLAIN, TENSORRT, of_flags, providers, with_options
from dlv3deploy.engines.request import EngineRequest

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime with all providers, on a machine with a GPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    for module in (choosing, onnxruntime_engine):
        monkeypatch.setattr(module, "find_gpu", lambda: Gpu("Orin", "8.7", "12.6"))


def test_without_a_gpu_the_cpu_is_taken_and_nothing_else_can_be_chosen() -> None:
    assert providers() == providers("cpu") == [CPU]
    for name in ("cuda", "tensorrt"):
        with pytest.raises(UserError, match=f"--provider {name}: this ONNX Runtime has cpu"):
            providers(name)


def test_a_build_of_onnx_runtime_with_cuda_needs_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(choosing, "find_gpu", lambda: None)
    assert providers() == [CPU]
    with pytest.raises(UserError, match="--provider cuda: needs an NVIDIA GPU"):
        providers("cuda")


@pytest.mark.usefixtures("gpu")
def test_with_a_gpu_cuda_is_taken_and_every_choice_says_what_takes_the_rest() -> None:
    assert providers() == [CUDA, CPU] and providers("cuda") == [CUDA]
    assert providers("tensorrt") == [TENSORRT, CUDA]
    assert providers("cpu") == [CPU]


@pytest.mark.usefixtures("gpu")
def test_a_provider_that_was_chosen_and_does_not_start_is_an_error_and_another_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime itself falls back: its CUDA provider is not in this build."""
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda model, options, providers: real(model, options, providers=providers[-1:])
    )
    model = write_tiny(tmp_path / "model.onnx").read_bytes()
    engine = OnnxRuntimeEngine(model, tiny_spec(), "model.onnx")
    assert "could not start CUDAExecutionProvider and runs on the CPU" in capsys.readouterr().err
    assert engine.name.endswith(", CPU")
    with pytest.raises(UserError, match="model.onnx: (cannot be loaded by ONNX Runtime|ONNX Runtime could not start CUDA)"):
        OnnxRuntimeEngine(model, tiny_spec(), "model.onnx", "cuda")


@pytest.mark.usefixtures("gpu")
def test_the_tensorrt_provider_gets_the_graph_as_it_is(tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "model.onnx").read_bytes()
    OnnxRuntimeBackend("tensorrt").build(model, tmp_path / "model.engine", "model.onnx")
    assert (tmp_path / "model.engine").read_bytes() == model
    assert OnnxRuntimeBackend("tensorrt").builder().flags["providers"] == [TENSORRT, CUDA]
    assert OnnxRuntimeBackend("tensorrt").target().device == "Orin"


def test_the_tensorrt_provider_is_told_the_types_of_the_model(tmp_path: Path) -> None:
    from calibration_graphs import quantized_deeplab

    plain = write_tiny(tmp_path / "model.onnx").read_bytes()
    kept = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache_folder() / COMPILED)}
    assert with_options([TENSORRT, CUDA], plain, None) == [(TENSORRT, kept), CUDA]
    told = with_options([TENSORRT, CUDA], quantized_deeplab().SerializeToString(), None)
    assert told == [(TENSORRT, {"trt_int8_enable": True, **kept}), CUDA]
    assert with_options([CUDA, CPU], plain, PLAIN) == [CUDA, CPU]
    assert with_options([CUDA, CPU], plain, CHANNELS_LAST) == [(CUDA, {"prefer_nhwc": True}), CPU]


@pytest.mark.usefixtures("gpu")
def test_a_manifest_leads_back_to_the_choice() -> None:
    for chosen in ("cpu", "cuda", "tensorrt", None):
        assert of_flags({"providers": providers(chosen)}) == chosen
    assert of_flags({"providers": 5}) is None and of_flags({}) is None


def test_a_chosen_cpu_is_in_the_manifest_and_stays_where_there_is_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tiny(tmp_path / "model.onnx")
    request = EngineRequest(source, source, tiny_spec(), "fp32", "onnxruntime", provider="cpu")
    assert build(request, tmp_path / "model.engine").builder.flags["providers"] == [CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    for module in (choosing, onnxruntime_engine):
        monkeypatch.setattr(module, "find_gpu", lambda: Gpu("Orin", "8.7", "12.6"))
    with open_engine(tmp_path / "model.engine") as engine:
        assert engine.name.endswith(", CPU")


def test_an_engine_for_cuda_is_stale_where_there_is_none(tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "model.onnx")
    build(EngineRequest(source, source, tiny_spec(), "fp32", "onnxruntime"), tmp_path / "model.engine")
    place = manifest_path(tmp_path / "model.engine")
    facts = json.loads(place.read_text())
    facts["builder"]["flags"]["providers"] = [CUDA, CPU]
    place.write_text(json.dumps(facts))
    assert Manifest.read(tmp_path / "model.engine").builder.flags["providers"] == [CUDA, CPU]
    with pytest.raises(StaleArtefact, match=r"builder's providers was \['CUDA.*is \['CPU"):
        open_engine(tmp_path / "model.engine")


@pytest.mark.usefixtures("gpu")
def test_the_tensorrt_provider_runs_a_graph_as_it_is_typed(tmp_path: Path) -> None:
    """Its engine is that graph, in which nothing is fused yet."""
    from calibration_graphs import quantized_deeplab

    engine = tmp_path / "model.engine"
    engine.write_bytes(quantized_deeplab().SerializeToString())
    typed = layer_precision(onnx.load(engine))
    assert "int8" in typed.values()
    assert OnnxRuntimeBackend("tensorrt").layer_precision(engine, typed) == typed


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("computes", "asked"), [(False, True), (True, False)])
def test_what_computes_sizes_may_do_that_on_the_processor(computes: bool, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime puts arithmetic of shapes there whatever the provider, and would refuse the graph for it."""
    model = with_logits(tiny_deeplab())
    if computes:
        model = with_open_batch(model)
    entries: dict[str, str] = {}
    options = onnxruntime.SessionOptions

    class Noted(options):  # type: ignore[misc, valid-type]  # the module's own
        def add_session_config_entry(self, name: str, value: str) -> None:
            entries[name] = value

    monkeypatch.setattr(onnxruntime, "SessionOptions", Noted)
    with pytest.raises(UserError):  # CUDA cannot start here
        OnnxRuntimeEngine(model.SerializeToString(), tiny_spec(), "it", "cuda")
    assert ("session.disable_cpu_ep_fallback" in entries) == asked


def test_idle_sessions_leave_the_processor_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it two engines in turns take twice the time of each, for the threads of the other one spin."""
    entries: dict[str, str] = {}
    options = onnxruntime.SessionOptions

    class Noted(options):  # type: ignore[misc, valid-type]  # the module's own
        def add_session_config_entry(self, name: str, value: str) -> None:
            entries[name] = value
            super().add_session_config_entry(name, value)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Noted)
    OnnxRuntimeEngine(tiny_deeplab().SerializeToString(), tiny_spec(), "it").close()
    assert entries["session.force_spinning_stop"] == "1"
