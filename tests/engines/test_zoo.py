"""TensorRT-RTX compiles the backbones and heads of `train` in FP32, FP16 and INT8, plain and with the default rewrites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dlv3deploy.core.classes import VOC
from dlv3deploy.core.graph import fix_input, simplified
from dlv3deploy.core.spec import Architecture, InputSpec, ModelSpec, OutputSpec
from dlv3deploy.engines.dialect import TENSORRT_RTX
from dlv3deploy.engines.precision import to_float16
from dlv3deploy.engines.rewrites.certificate import noise
from dlv3deploy.engines.rewrites.certified import BY_DEFAULT, certified
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

if TYPE_CHECKING:
    from onnx import ModelProto

torch = pytest.importorskip("torch")
pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

SIZE = 65, 97
SCORES = OutputSpec("scores")
RATES = (2, 4, 12)  # of which the last reads padding alone at its outer taps, on a map of 5×7
ZOO = {
    "resnet18, decoder": Architecture("resnet18", aspp_rates=RATES, decoder=True),
    "resnet34, deeplabv2": Architecture("resnet34", head="deeplabv2", aspp_rates=RATES),
    "resnet50": Architecture("resnet50", aspp_rates=RATES),
    "resnet101, a quarter as wide": Architecture("resnet101", aspp_rates=RATES, width=0.25),
    "mobilenet_v2": Architecture("mobilenet_v2", aspp_rates=RATES),
    "mobilenet_v3_large": Architecture("mobilenet_v3_large", aspp_rates=RATES),
    "mobilenet_v3_large, lraspp": Architecture("mobilenet_v3_large", head="lraspp"),
}


@pytest.mark.parametrize("name", ZOO)
def test_every_network_is_compiled(name: str, tmp_path: Path) -> None:
    backend, plain = TensorRTBackend(TENSORRT_RTX, TensorRTOptions(("8.9",))), graph_of(ZOO[name])
    for graph, precisions in ((plain, ("fp32", "fp16")), (quantized(plain), ("int8",))):
        rewritten = certified(graph, BY_DEFAULT, SCORES, name)
        assert bool(rewritten.changes) == (ZOO[name].head != "lraspp"), rewritten.names
        for model in (graph, rewritten.model) if rewritten.changes else (graph,):
            for precision in precisions:
                typed = to_float16(simplified(model)) if precision == "fp16" else model
                backend.build(typed.SerializeToString(), tmp_path / "model.engine", f"{name}, {precision}")
                assert (tmp_path / "model.engine").stat().st_size > 100_000


def graph_of(architecture: Architecture) -> ModelProto:
    """Of random weights."""
    from dlv3deploy.train.export import ExportedModel, to_onnx
    from dlv3deploy.train.network.deeplabv3 import DeepLabV3

    torch.manual_seed(0)
    spec = ModelSpec(VOC, InputSpec(*SIZE), SCORES, architecture=architecture)
    model = ExportedModel(DeepLabV3(architecture, len(VOC)).eval(), SCORES).eval()
    return fix_input(simplified(to_onnx(model, spec, 17)), (1, 3, *SIZE))


def quantized(graph: ModelProto) -> ModelProto:
    """By min-max on noise: scales decide nothing of what a compiler takes."""
    from dlv3deploy.calibration.method import Method
    from dlv3deploy.calibration.network import Network
    from dlv3deploy.calibration.quantisation import Calibration

    images = list(noise((1, 3, *SIZE), 1))
    network = Network.prepared(graph, *SIZE)
    return fix_input(Calibration(network, lambda: images).quantise(Method()).model(), (1, 3, *SIZE))
