"""MobileNetV3-Large with atrous convolution, under the names that it has in torchvision's segmentation models (`0` to `16`).

Howard et al. 2019, Table 1, up to the 960-channel layer, which is the last one that segmentation uses.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import hardsigmoid, relu

from dlv3deploy.train.network.atrous import StageRates, stage_rates
from dlv3deploy.train.network.depthwise import DepthwiseConvolution
from dlv3deploy.train.network.features import Features
from dlv3deploy.train.network.width import multiple_of_eight


class Block(NamedTuple):
    """One row of the paper's Table 1."""

    kernel: int
    expanded: int
    outputs: int
    squeeze: bool
    hard_swish: bool
    stride: int


BLOCKS = (
    Block(3, 16, 16, False, False, 1),
    Block(3, 64, 24, False, False, 2),
    Block(3, 72, 24, False, False, 1),
    Block(5, 72, 40, True, False, 2),
    Block(5, 120, 40, True, False, 1),
    Block(5, 120, 40, True, False, 1),
    Block(3, 240, 80, False, True, 2),
    Block(3, 200, 80, False, True, 1),
    Block(3, 184, 80, False, True, 1),
    Block(3, 184, 80, False, True, 1),
    Block(3, 480, 112, True, True, 1),
    Block(3, 672, 112, True, True, 1),
    Block(5, 672, 160, True, True, 2),
    Block(5, 960, 160, True, True, 1),
    Block(5, 960, 160, True, True, 1),
)
STEM_CHANNELS, STEM_STRIDE = 16, 2
LAST_CHANNELS = 960
LOW_END, MIDDLE_END = 4, 5  # layers up to the 24-channel map at stride 4, and to the first 40-channel one at stride 8
EPSILON, MOMENTUM = 1e-3, 0.01  # of batch norm, as the published weights have it


def _normalised(convolution: nn.Conv2d, activation: type[nn.Module] | None) -> nn.Sequential:
    norm = nn.BatchNorm2d(convolution.out_channels, eps=EPSILON, momentum=MOMENTUM)
    return nn.Sequential(convolution, norm, *([activation(inplace=True)] if activation else []))


def _pointwise(inputs: int, outputs: int, activation: type[nn.Module] | None) -> nn.Sequential:
    return _normalised(nn.Conv2d(inputs, outputs, 1, bias=False), activation)


class SqueezeExcitation(nn.Module):
    """Channels weighted by a gate that is computed from their means: N×C×h×w to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = multiple_of_eight(channels // 4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * hardsigmoid(self.fc2(relu(self.fc1(self.avgpool(x)))))


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise convolution, gate, linear 1×1 projection; the identity is added where shapes allow."""

    def __init__(self, inputs: int, block: Block, stride: int, rate: int) -> None:
        super().__init__()
        activation = nn.Hardswish if block.hard_swish else nn.ReLU
        layers: list[nn.Module] = []
        if block.expanded != inputs:
            layers.append(_pointwise(inputs, block.expanded, activation))
        layers.append(_normalised(DepthwiseConvolution(block.expanded, block.kernel, stride, rate), activation))
        if block.squeeze:
            layers.append(SqueezeExcitation(block.expanded))
        layers.append(_pointwise(block.expanded, block.outputs, None))
        self.block = nn.Sequential(*layers)
        self.identity = block.stride == 1 and inputs == block.outputs

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.block(x)
        return x + projected if self.identity else projected


class MobileNetV3(nn.Sequential):
    """Features of the 24-channel map at stride 4, the first 40-channel map at stride 8, and the 960-channel one."""

    low_channels, middle_channels, out_channels = 24, 40, LAST_CHANNELS

    def __init__(self, output_stride: int) -> None:
        stem = nn.Conv2d(3, STEM_CHANNELS, 3, STEM_STRIDE, padding=1, bias=False)
        layers: list[nn.Module] = [_normalised(stem, nn.Hardswish)]
        channels = STEM_CHANNELS
        for block, rates in zip(BLOCKS, _block_rates(output_stride), strict=True):
            layers.append(InvertedResidual(channels, block, rates.stride, rates.first_rate))
            channels = block.outputs
        layers.append(_pointwise(channels, LAST_CHANNELS, nn.Hardswish))
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Features:
        maps = []
        for layer in self:
            x = layer(x)
            maps.append(x)
        return Features(maps[LOW_END - 1], maps[MIDDLE_END - 1], x)


def _block_rates(output_stride: int) -> list[StageRates]:
    """A stage for each block. The last stride, once replaced, gives its own convolution the new rate: torchvision's rule."""
    plan = stage_rates(tuple(block.stride for block in BLOCKS), STEM_STRIDE, output_stride)
    last = max(i for i, block in enumerate(BLOCKS) if block.stride > 1)
    plan[last] = plan[last]._replace(first_rate=plan[last].later_rate)
    return plan
