"""ResNet backbones with atrous convolution (paper, sections 3.1 and 3.2), under torchvision's parameter names.

Blocks 5 to 7 (`layer5` …) are replicas of block 4 in cascade; with a multi-grid, block b's three 3×3 convolutions have the
rates unit rate × the block's rate: at output stride 16 blocks 4, 5, 6, 7 have 2, 4, 8, 16 (Figure 3b).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dlv3deploy.train.network.atrous import StageRates, stage_rates
from dlv3deploy.train.network.choices import LAST_BLOCK
from dlv3deploy.train.network.features import Features
from dlv3deploy.train.network.width import multiple_of_eight


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and the identity (ResNet-18 and -34).

    `rates` are those of the convolution that has the stride and of the one behind it.
    """

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, rates: tuple[int, int]) -> None:
        super().__init__()
        first, second = rates
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=first, dilation=first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=second, dilation=second, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        joined: Tensor = self.relu(residual + (x if self.downsample is None else self.downsample(x)))
        return joined


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 and the identity (ResNet-50 and -101); the stride sits in the 3×3, as in torchvision's weights.

    `rates` are as in a BasicBlock; nothing behind the stride is large enough for the second.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, rates: tuple[int, int]) -> None:
        super().__init__()
        outputs, rate = width * self.expansion, rates[0]
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=rate, dilation=rate, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        joined: Tensor = self.relu(residual + (x if self.downsample is None else self.downsample(x)))
        return joined


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """What takes a block's input to its output's shape; between equal channels it has no weights, whatever the stride."""
    if inputs == outputs:
        return None if stride == 1 else nn.MaxPool2d(1, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


@dataclass(frozen=True)
class ResNetLayout:
    """The block and how many of them each of the four stages has."""

    block: type[BasicBlock | Bottleneck]
    depths: tuple[int, int, int, int]


LAYOUTS = {
    "resnet18": ResNetLayout(BasicBlock, (2, 2, 2, 2)),
    "resnet34": ResNetLayout(BasicBlock, (3, 4, 6, 3)),
    "resnet50": ResNetLayout(Bottleneck, (3, 4, 6, 3)),
    "resnet101": ResNetLayout(Bottleneck, (3, 4, 23, 3)),
}
WIDTHS = (64, 128, 256, 512)
STRIDES = (1, 2, 2, 2)
STEM_STRIDE = 4


class ResNet(nn.Module):
    """Features behind blocks 1, 3 and the last one, `blocks`; the last map is the input over the output stride, rounded up.

    `width` multiplies all channels; the published networks have 1.
    """

    def __init__(
        self,
        layout: ResNetLayout,
        output_stride: int,
        blocks: int = LAST_BLOCK,
        multi_grid: tuple[int, ...] | None = None,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        replicas = blocks - LAST_BLOCK
        widths = [multiple_of_eight(channels * width) for channels in WIDTHS + WIDTHS[-1:] * replicas]
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        depths = layout.depths + layout.depths[-1:] * replicas
        plan = stage_rates(STRIDES + (2,) * replicas, STEM_STRIDE, output_stride)
        channels = widths[0]
        self.stages: list[str] = []
        for number, (wide, depth, rates) in enumerate(zip(widths, depths, plan, strict=True), 1):
            unit_rates = multi_grid if multi_grid and number >= LAST_BLOCK else None
            units: list[nn.Module] = []
            for unit, pair in enumerate(_rates_of_units(depth, rates, unit_rates)):
                units.append(layout.block(channels, wide, rates.stride if unit == 0 else 1, pair))
                channels = wide * layout.block.expansion
            self.stages.append(f"layer{number}")
            self.add_module(self.stages[-1], nn.Sequential(*units))
        self.low_channels = widths[0] * layout.block.expansion
        self.middle_channels = widths[2] * layout.block.expansion
        self.out_channels = channels

    def forward(self, x: Tensor) -> Features:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
            maps.append(x)
        return Features(low=maps[0], middle=maps[2], high=maps[-1])


def _rates_of_units(depth: int, stage: StageRates, unit_rates: tuple[int, ...] | None) -> list[tuple[int, int]]:
    """(first, second) rate of every unit of a stage: by torchvision's rule, or unit rate × the block's rate."""
    if unit_rates is None:
        return [(stage.first_rate, stage.later_rate)] + [(stage.later_rate, stage.later_rate)] * (depth - 1)
    return [(unit * stage.later_rate, unit * stage.later_rate) for unit in unit_rates]


def replicated(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """`weights` of a published ResNet with blocks 5 to 7 of `wanted` added as replicas of block 4 (paper, section 3.2).

    Block 4's first unit widens 1024 channels to 2048 and fits nowhere behind itself; its second unit stands in for it.
    """
    filled = dict(weights)
    for name in wanted:
        stage, _, rest = name.partition(".")
        if stage in ("layer5", "layer6", "layer7") and name not in weights:
            unit, _, part = rest.partition(".")
            source = f"layer{LAST_BLOCK}.{max(1, int(unit))}.{part}"
            if source in weights:
                filled[name] = weights[source].clone()
    return filled
