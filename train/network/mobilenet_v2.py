"""MobileNetV2 with atrous convolution, under torchvision's parameter names, up to its 320-channel layer.

Sandler et al. 2018, Table 2; the 1280-channel layer is left out, as its authors do for segmentation (section 6.3).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from dlv3deploy.train.network.atrous import stage_rates
from dlv3deploy.train.network.depthwise import DepthwiseConvolution
from dlv3deploy.train.network.features import Features
from dlv3deploy.train.network.width import multiple_of_eight

# expansion, channels, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_CHANNELS = 32
STEM_STRIDE = 2
LOW_STAGE = 1  # the 24-channel stage, at stride 4
MIDDLE_STAGE = 4  # the 96-channel stage, the last at stride 16, feeds the auxiliary head


def _activated(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, linear 1×1 projection; the identity is added where shapes allow.

    With `early_padding` zeros are put around the block's input instead of the depthwise convolution's, where they become what
    the expansion makes of zero: weights that were trained so compute other scores near every border otherwise.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, rate: int, expansion: int, early_padding: bool = False) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [_activated(nn.Conv2d(inputs, hidden, 1, bias=False))] if expansion > 1 else []
        layers += [
            _activated(DepthwiseConvolution(hidden, 3, stride, rate, padding=0 if early_padding else None)),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.identity = stride == 1 and inputs == outputs
        self.padding = rate if early_padding else 0

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.conv(pad(x, [self.padding] * 4) if self.padding else x)
        return x + projected if self.identity else projected


class MobileNetV2(nn.Module):
    """Features of the 24-, 96- and 320-channel stages; `width` multiplies the channels (section 4, width multiplier).

    With `early_padding` the first convolution is not padded at all, as in VainF/DeepLabV3Plus-Pytorch: a side of one more than
    a multiple of the output stride then gives a map rounded down, not up.
    """

    def __init__(self, output_stride: int, width: float = 1.0, early_padding: bool = False) -> None:
        super().__init__()
        strides = tuple(stage[3] for stage in STAGES)
        channels = multiple_of_eight(STEM_CHANNELS * width)
        stem = nn.Conv2d(3, channels, 3, STEM_STRIDE, padding=0 if early_padding else 1, bias=False)
        layers: list[nn.Module] = [_activated(stem)]
        ends, outputs = [], []
        for (expansion, stage_channels, blocks, _), rates in zip(
            STAGES, stage_rates(strides, STEM_STRIDE, output_stride), strict=True
        ):
            wide = multiple_of_eight(stage_channels * width)
            for block in range(blocks):
                stride, rate = (rates.stride, rates.first_rate) if block == 0 else (1, rates.later_rate)
                layers.append(InvertedResidual(channels, wide, stride, rate, expansion, early_padding))
                channels = wide
            ends.append(len(layers))
            outputs.append(channels)
        self.features = nn.Sequential(*layers)
        self.low_end, self.middle_end = ends[LOW_STAGE], ends[MIDDLE_STAGE]
        self.low_channels, self.middle_channels, self.out_channels = outputs[LOW_STAGE], outputs[MIDDLE_STAGE], channels

    def forward(self, x: Tensor) -> Features:
        low = self.features[: self.low_end](x)
        middle = self.features[self.low_end : self.middle_end](low)
        return Features(low, middle, self.features[self.middle_end :](middle))
