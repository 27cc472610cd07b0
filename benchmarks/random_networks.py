"""Networks of random weights, for what does not depend on them: work, plans, latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlv3deploy.core.classes import VOC
from dlv3deploy.core.graph import fix_input, simplified
from dlv3deploy.core.spec import Architecture, InputSpec, ModelSpec, OutputSpec
from dlv3deploy.engines.rewrites.certificate import noise

if TYPE_CHECKING:
    from onnx import ModelProto

    from dlv3deploy.train.network.deeplabv3 import DeepLabV3

Size = tuple[int, int]
OPSET = 17


def spec_for(size: Size) -> ModelSpec:
    return ModelSpec(VOC, InputSpec(*size), OutputSpec("scores"))


def fresh_model(architecture: Architecture) -> DeepLabV3:
    """The same weights every time, in evaluation mode."""
    import torch

    from dlv3deploy.train.network.deeplabv3 import DeepLabV3

    torch.manual_seed(0)
    return DeepLabV3(architecture, len(VOC)).eval()


def fresh_graph(architecture: Architecture, size: Size) -> ModelProto:
    """For one image."""
    from dlv3deploy.train.export import ExportedModel, to_onnx

    spec = spec_for(size)
    model = ExportedModel(fresh_model(architecture), spec.output).eval()
    return fix_input(simplified(to_onnx(model, spec, OPSET)), (1, 3, *size))


def calibrated_on_noise(graph: ModelProto) -> ModelProto:
    """In INT8 by min-max, which decides nothing but scales."""
    from dlv3deploy.calibration.method import Method
    from dlv3deploy.calibration.network import Network
    from dlv3deploy.calibration.quantisation import Calibration

    batch, channels, height, width = (d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim)
    images = list(noise((batch, channels, height, width), 1))
    network = Network.prepared(graph, height, width)
    return fix_input(Calibration(network, lambda: images).quantise(Method()).model(), (batch, channels, height, width))
