"""Depthwise convolution in bfloat16 on a CPU, where torch's own gradient is wrong once an atrous rate is above 1."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network.deeplabv3 import build_backbone
from dlv3deploy.train.network.depthwise import DepthwiseConvolution

CHANNELS, HEIGHT, WIDTH = 96, 32, 40


def leave_rubbish() -> None:
    """Memory that is free again, full of what shows when it is read."""
    rubbish = [torch.full((1000 * size,), float("nan")) for size in range(1, 1000, 37)]
    del rubbish


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels-last", "contiguous"])
@pytest.mark.parametrize(("kernel", "rate", "stride"), [(3, 1, 1), (3, 2, 1), (3, 4, 1), (5, 2, 1), (3, 1, 2), (5, 4, 1)])
def test_gradients_in_bfloat16_are_those_of_float64(kernel: int, rate: int, stride: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConvolution(CHANNELS, kernel, stride, rate).to(memory_format=layout)  # type: ignore[call-overload]  # typed for tensors only
    x = torch.randn(4, CHANNELS, HEIGHT, WIDTH).contiguous(memory_format=layout).requires_grad_()
    weight, given = layer.weight.detach().double().requires_grad_(), x.detach().double().requires_grad_()
    expected = conv2d(given, weight, None, stride, rate * (kernel // 2), rate, CHANNELS)
    gradient = torch.randn(expected.shape).contiguous(memory_format=layout)
    expected.backward(gradient.double())  # type: ignore[no-untyped-call]  # torch's own
    for _ in range(3):
        layer.zero_grad()
        x.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = layer(x)
        leave_rubbish()
        result.backward(gradient.to(result.dtype))
        for found, wanted in ((result, expected), (layer.weight.grad, weight.grad), (x.grad, given.grad)):
            assert found is not None and wanted is not None
            assert float((found.detach() - wanted.detach()).abs().max() / wanted.detach().abs().max()) < 0.02


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "mobilenet_v3_large"])
def test_every_depthwise_convolution_of_the_networks_is_one(backbone: str) -> None:
    with torch.device("meta"):
        network = build_backbone(Architecture(backbone, 8))
    grouped = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(grouped) >= 15 and all(isinstance(m, DepthwiseConvolution) for m in grouped)
