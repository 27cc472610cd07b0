"""DeepLabv3: "Rethinking Atrous Convolution for Semantic Image Segmentation" (Chen et al., 2017), section 3.3.

State-dict names are torchvision's (`backbone.…`, `classifier.0.convs.…`, `aux_classifier.…`), so its published weights load.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.aspp import ASPP
from dlv3deploy.train.mobilenet import MobileNetV2
from dlv3deploy.train.resnet import LAYOUTS, ResNet

BACKBONES = (*LAYOUTS, "mobilenet_v2")
PAPER_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}  # section 4.2: doubled at output stride 8, so halved at 32


class DeepLabHead(nn.Sequential):
    """ASPP, a 3×3 convolution, and the 1×1 convolution to class scores."""

    def __init__(self, inputs: int, classes: int, rates: tuple[int, ...], channels: int) -> None:
        super().__init__(
            ASPP(inputs, rates, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, classes, 1),
        )


class AuxiliaryHead(nn.Sequential):
    """The small head on the middle features that torchvision trains beside the main one; never exported."""

    def __init__(self, inputs: int, classes: int) -> None:
        channels = inputs // 4
        super().__init__(
            nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Conv2d(channels, classes, 1),
        )


class DeepLabV3(nn.Module):
    """Scores at feature resolution, N×classes×⌈H/s⌉×⌈W/s⌉ for output stride s, from N×3×H×W float32."""

    def __init__(self, architecture: Architecture, classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = build_backbone(architecture.backbone, architecture.output_stride)
        self.classifier = DeepLabHead(self.backbone.out_channels, classes, architecture.aspp_rates, architecture.aspp_channels)
        self.aux_classifier = AuxiliaryHead(self.backbone.auxiliary_channels, classes) if architecture.auxiliary else None

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.backbone(x)[1])
        return scores


class TrainingForward(nn.Module):
    """What training runs: the scores, and the auxiliary head's scores when there is one."""

    def __init__(self, model: DeepLabV3) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        middle, features = self.model.backbone(x)
        auxiliary = self.model.aux_classifier
        return self.model.classifier(features), auxiliary(middle) if auxiliary is not None else None


def build_backbone(name: str, output_stride: int) -> ResNet | MobileNetV2:
    """The backbone called `name`, at the given output stride. Raises UserError for an unknown name."""
    if name in LAYOUTS:
        return ResNet(LAYOUTS[name], output_stride)
    if name == "mobilenet_v2":
        return MobileNetV2(output_stride)
    raise UserError(f"backbone {name!r}", "is unknown", f"use one of {', '.join(BACKBONES)}")


def upsample_to(scores: Tensor, height: int, width: int) -> Tensor:
    """Logits at the input's size: bilinear, half-pixel centres (paper, section 4.1: labels are never shrunk)."""
    return interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
