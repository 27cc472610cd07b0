"""The conformance suite for every backend that this machine can run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conformance import EngineConformance
from tiny_models import tiny_spec, write_tiny

from dlv3deploy.core.engine import Engine
from dlv3deploy.core.spec import Architecture, InputSpec, OutputSpec
from dlv3deploy.engines.build import EngineRequest, build
from dlv3deploy.engines.open import open_engine


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
        source = write_tiny(tmp_path / "model.onnx")
        build(EngineRequest(source, source, tiny_spec(), "fp16", "tensorrt-rtx"), tmp_path / "model.engine")
        with open_engine(tmp_path / "model.engine") as opened:
            yield opened
