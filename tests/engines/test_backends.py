"""The conformance suite for every backend that this machine can run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from conformance import EngineConformance
from tiny_models import tiny_spec, write_tiny

from dlv3deploy.core.engine import Engine
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture, InputSpec, OutputSpec
from dlv3deploy.engines import tensorrt_backend, tensorrt_engine
from dlv3deploy.engines.build import build
from dlv3deploy.engines.dialect import TENSORRT_RTX
from dlv3deploy.engines.gpu import Gpu
from dlv3deploy.engines.open import checked_manifest, layer_times, open_engine, plan_of
from dlv3deploy.engines.request import EngineRequest, default_backend
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend


class TestOnnxRuntimeOnAnOnnxFile(EngineConformance):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Engine:
        runtime = pytest.importorskip("dlv3deploy.engines.onnxruntime_engine")
        pytest.importorskip("onnxruntime")
        return runtime.OnnxRuntimeEngine.open(write_tiny(tmp_path / "model.onnx"), tiny_spec())


class TestOnnxRuntimeOnAnEngine(EngineConformance):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[Engine]:
        pytest.importorskip("onnxruntime")
        source = write_tiny(tmp_path / "model.onnx")
        build(EngineRequest(source, source, tiny_spec(), "fp32", "onnxruntime"), tmp_path / "model.engine")
        with open_engine(tmp_path / "model.engine") as opened:
            yield opened


class TestPyTorchOnACheckpoint(EngineConformance):
    @pytest.fixture
    def engine(self) -> Engine:
        pytest.importorskip("torch")
        from dlv3deploy.train.network.deeplabv3 import DeepLabV3
        from dlv3deploy.train.torch_engine import TorchEngine

        architecture = Architecture("resnet18", 16, (2, 4), 8)
        spec = replace(tiny_spec(), architecture=architecture, input=InputSpec(32, 48), output=OutputSpec("scores"))
        return TorchEngine(DeepLabV3(architecture, len(spec.classes)).eval(), spec)


@pytest.mark.gpu
class TestTensorRTRtxOnAnEngine(EngineConformance):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[Engine]:
        pytest.importorskip("tensorrt_rtx")
        if not TensorRTBackend(TENSORRT_RTX).runs_here():
            pytest.skip("TensorRT-RTX does not run on this GPU")
        source = write_tiny(tmp_path / "model.onnx")
        build(EngineRequest(source, source, tiny_spec(), "fp16", "tensorrt-rtx"), tmp_path / "model.engine")
        with open_engine(tmp_path / "model.engine") as opened:
            yield opened

    def test_its_inspector_tells_the_kernels(self, engine: Engine, tmp_path: Path) -> None:
        path = tmp_path / "model.engine"
        plan = plan_of(path, checked_manifest(path))
        assert plan.convolutions > 1 and plan.macs > 0

    def test_its_profiler_times_them(self, engine: Engine, tmp_path: Path) -> None:
        layers = layer_times(tmp_path / "model.engine", engine.spec, self.batch(engine), 5)
        assert len(layers) > 1 and all(layer.name and layer.ms > 0 for layer in layers)


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        ("7.5", True),
        ("8.6", True),
        ("8.9", True),
        ("12.0", True),
        ("12.5", True),
        ("8.7", False),
        ("9.0", False),
        ("10.0", False),
    ],
)
def test_tensorrt_rtx_is_taken_for_gpus_that_it_runs_on_alone(
    capability: str, runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is played: which ones TensorRT-RTX runs on, its own bindings say."""
    pytest.importorskip("tensorrt_rtx")
    for module in (tensorrt_backend, tensorrt_engine):
        monkeypatch.setattr(module, "find_gpu", lambda: Gpu("Some GPU", capability, "13.0"))
    assert TensorRTBackend(TENSORRT_RTX).runs_here() == runs
    if not runs:
        with pytest.raises(UserError, match=f"does not run on compute capability {capability}, this Some GPU's"):
            TensorRTBackend(TENSORRT_RTX).open(tmp_path / "model.engine", tiny_spec())
    if not find_spec("tensorrt"):
        assert default_backend() == ("tensorrt-rtx" if runs else "onnxruntime")
