"""ResNet backbones with atrous convolution (paper, section 3.1), under torchvision's parameter names."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dlv3deploy.train.atrous import stage_rates


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


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
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
    """Features of `layer3` and `layer4`: N×C×h×w, where layer4's map is the input divided by the output stride, rounded up."""

    def __init__(self, layout: ResNetLayout, output_stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels, stages = WIDTHS[0], []
        for width, depth, rates in zip(WIDTHS, layout.depths, stage_rates(STRIDES, STEM_STRIDE, output_stride), strict=True):
            blocks: list[nn.Module] = [layout.block(channels, width, rates.stride, (rates.first_rate, rates.later_rate))]
            channels = width * layout.block.expansion
            blocks += [layout.block(channels, width, 1, (rates.later_rate, rates.later_rate)) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels = channels
        self.auxiliary_channels = channels // 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        middle = self.layer3(self.layer2(self.layer1(x)))
        return middle, self.layer4(middle)
