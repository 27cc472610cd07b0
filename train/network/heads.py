"""From features to class scores: the heads, each called with a backbone's Features."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, cat, nn
from torch.nn.functional import interpolate

from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network.aspp import ASPP, SummedASPP, normalised
from dlv3deploy.train.network.dropout import SpreadDropout
from dlv3deploy.train.network.features import Features

LOW_LEVEL_CHANNELS = 48  # DeepLabv3+ (Chen et al. 2018), section 4.1
LRASPP_CHANNELS = 128  # Howard et al. 2019, section 6.4


def _through(layers: nn.Sequential, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


class DeepLabHead(nn.Sequential):
    """ASPP, torchvision's 3×3 convolution unless the architecture leaves it out, and the 1×1 convolution to class scores."""

    def __init__(self, inputs: int, classes: int, architecture: Architecture, dropout: float) -> None:
        channels = architecture.aspp_channels
        layers: list[tuple[str, nn.Module]] = [("0", aspp_of(architecture, inputs, dropout))]
        if architecture.final_convolution:
            convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            layers += [(str(place), layer) for place, layer in enumerate(normalised(convolution), 1)]
        super().__init__(OrderedDict([*layers, ("4", nn.Conv2d(channels, classes, 1))]))

    def forward(self, features: Features) -> Tensor:
        return _through(self, features.high)


def aspp_of(architecture: Architecture, inputs: int, dropout: float) -> ASPP:
    """The ASPP that `architecture` describes."""
    return ASPP(
        inputs,
        architecture.aspp_rates,
        architecture.aspp_channels,
        dropout,
        architecture.aspp_batch_norm,
        architecture.image_pooling,
    )


class CascadeHead(nn.Sequential):
    """A 1×1 convolution from the last block to class scores: the cascades of section 3.2 need nothing else."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(nn.Conv2d(inputs, classes, 1))

    def forward(self, features: Features) -> Tensor:
        return _through(self, features.high)


class DeepLabV2Head(SummedASPP):
    """DeepLabv2's summed ASPP, which ends at class scores."""

    def forward(self, features: Features) -> Tensor:  # type: ignore[override]  # a head takes Features
        return super().forward(features.high)


class DecoderHead(nn.Module):
    """DeepLabv3+'s decoder: ASPP, enlarged to output stride 4 and joined with 48 low-level channels, two convolutions.

    Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution", section 3.1, with a single 3×3 convolution behind the
    concatenation. The names are those of VainF/DeepLabV3Plus-Pytorch, whose weights load.
    """

    def __init__(self, inputs: int, low_inputs: int, classes: int, architecture: Architecture, dropout: float) -> None:
        super().__init__()
        channels = architecture.aspp_channels
        self.project = nn.Sequential(*normalised(nn.Conv2d(low_inputs, LOW_LEVEL_CHANNELS, 1, bias=False)))
        self.aspp = aspp_of(architecture, inputs, dropout)
        joined = nn.Conv2d(channels + LOW_LEVEL_CHANNELS, channels, 3, padding=1, bias=False)
        self.classifier = nn.Sequential(*normalised(joined), nn.Conv2d(channels, classes, 1))

    def forward(self, features: Features) -> Tensor:
        low = self.project(features.low)
        high = interpolate(self.aspp(features.high), size=low.shape[2:], mode="bilinear", align_corners=False)
        scores: Tensor = self.classifier(cat([low, high], dim=1))
        return scores


class LRASPPHead(nn.Module):
    """MobileNetV3's Lite R-ASPP: gated 1×1 features, enlarged, and scores added to those of the map at output stride 8.

    Howard et al. 2019, section 6.4 and Figure 10, with torchvision's names and its pooling over the whole map.
    """

    def __init__(self, inputs: int, low_inputs: int, classes: int) -> None:
        super().__init__()
        self.cbr = nn.Sequential(*normalised(nn.Conv2d(inputs, LRASPP_CHANNELS, 1, bias=False)))
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, LRASPP_CHANNELS, 1, bias=False), nn.Sigmoid())
        self.low_classifier = nn.Conv2d(low_inputs, classes, 1)
        self.high_classifier = nn.Conv2d(LRASPP_CHANNELS, classes, 1)

    def forward(self, features: Features) -> Tensor:
        gated = self.cbr(features.high) * self.scale(features.high)
        enlarged = interpolate(gated, size=features.middle.shape[2:], mode="bilinear", align_corners=False)
        scores: Tensor = self.low_classifier(features.middle) + self.high_classifier(enlarged)
        return scores


class AuxiliaryHead(nn.Sequential):
    """The small head on the middle features that torchvision trains beside the main one; never exported."""

    def __init__(self, inputs: int, classes: int) -> None:
        channels = inputs // 4
        convolution = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        super().__init__(*normalised(convolution), SpreadDropout(0.1), nn.Conv2d(channels, classes, 1))
