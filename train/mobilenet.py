"""MobileNetV2 with atrous convolution, under torchvision's parameter names, up to its 320-channel layer.

Sandler et al. 2018, Table 2; the 1280-channel layer is left out, as its authors do for segmentation (section 6.3).
"""

from __future__ import annotations

from torch import Tensor, nn

from dlv3deploy.train.atrous import stage_rates

# expansion, channels, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_CHANNELS = 32
STEM_STRIDE = 2
MIDDLE_STAGE = 4  # the 96-channel stage, the last at stride 16, feeds the auxiliary head


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, rate: int = 1, groups: int = 1) -> nn.Sequential:
    padding = rate * (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation=rate, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, linear 1×1 projection; the identity is added where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, rate: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [_convolution(inputs, hidden, 1)] if expansion > 1 else []
        layers += [
            _convolution(hidden, hidden, 3, stride, rate, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.identity = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.conv(x)
        return x + projected if self.identity else projected


class MobileNetV2(nn.Module):
    """Features of the 96-channel stage and of the 320-channel one, N×C×h×w."""

    def __init__(self, output_stride: int) -> None:
        super().__init__()
        strides = tuple(stage[3] for stage in STAGES)
        layers: list[nn.Module] = [_convolution(3, STEM_CHANNELS, 3, STEM_STRIDE)]
        channels, self.middle = STEM_CHANNELS, 0
        for number, ((expansion, width, blocks, _), rates) in enumerate(
            zip(STAGES, stage_rates(strides, STEM_STRIDE, output_stride), strict=True)
        ):
            for block in range(blocks):
                stride, rate = (rates.stride, rates.first_rate) if block == 0 else (1, rates.later_rate)
                layers.append(InvertedResidual(channels, width, stride, rate, expansion))
                channels = width
            if number == MIDDLE_STAGE:
                self.middle = len(layers)
                self.auxiliary_channels = channels
        self.features = nn.Sequential(*layers)
        self.out_channels = channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.features[: self.middle](x)
        return middle, self.features[self.middle :](middle)
