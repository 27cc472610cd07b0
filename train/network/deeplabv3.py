"""DeepLabv3: "Rethinking Atrous Convolution for Semantic Image Segmentation" (Chen et al., 2017), sections 3.2 and 3.3.

State-dict names are torchvision's (`backbone.…`, `classifier.0.convs.…`, `aux_classifier.…`), so its published weights load.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate

from dlv3deploy.core.spec import Architecture, Coordinates
from dlv3deploy.train.network.choices import DROPOUT, check_architecture
from dlv3deploy.train.network.heads import (
    AuxiliaryHead,
    CascadeHead,
    DecoderHead,
    DeepLabHead,
    DeepLabV2Head,
    LRASPPHead,
)
from dlv3deploy.train.network.mobilenet_v2 import MobileNetV2
from dlv3deploy.train.network.mobilenet_v3 import MobileNetV3
from dlv3deploy.train.network.resnet import LAYOUTS, ResNet


class DeepLabV3(nn.Module):
    """Scores N×classes×h×w from N×3×H×W float32.

    h×w is the input over the output stride, rounded up; over 4 with DeepLabv3+'s decoder, over 8 with LR-ASPP. `dropout` acts
    in training, on what ASPP projects. Raises UserError for an architecture that cannot be built.
    """

    def __init__(self, architecture: Architecture, classes: int, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.architecture, self.classes = architecture, classes
        self.backbone = build_backbone(architecture)
        self.classifier = _head(architecture, self.backbone, classes, dropout)
        auxiliary = AuxiliaryHead(self.backbone.middle_channels, classes) if architecture.auxiliary else None
        self.aux_classifier = auxiliary

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.backbone(x))
        return scores


class TrainingForward(nn.Module):
    """What training runs: the scores, and the auxiliary head's scores when there is one."""

    def __init__(self, model: DeepLabV3) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.model.backbone(x)
        auxiliary = self.model.aux_classifier
        return self.model.classifier(features), auxiliary(features.middle) if auxiliary is not None else None


def build_backbone(architecture: Architecture) -> ResNet | MobileNetV2 | MobileNetV3:
    """The backbone of `architecture`, at its output stride. Raises UserError for one that cannot be built."""
    check_architecture(architecture)
    stride = architecture.output_stride
    if architecture.backbone == "mobilenet_v2":
        return MobileNetV2(stride, architecture.width, architecture.early_padding)
    if architecture.backbone == "mobilenet_v3_large":
        return MobileNetV3(stride)
    return ResNet(LAYOUTS[architecture.backbone], stride, architecture.blocks, architecture.multi_grid, architecture.width)


def _head(architecture: Architecture, backbone: ResNet | MobileNetV2 | MobileNetV3, classes: int, dropout: float) -> nn.Module:
    inputs = backbone.out_channels
    if architecture.decoder:
        return DecoderHead(inputs, backbone.low_channels, classes, architecture, dropout)
    if architecture.head == "cascade":
        return CascadeHead(inputs, classes)
    if architecture.head == "deeplabv2":
        return DeepLabV2Head(inputs, classes, architecture.aspp_rates)
    if architecture.head == "lraspp":
        return LRASPPHead(inputs, backbone.middle_channels, classes)
    return DeepLabHead(inputs, classes, architecture, dropout)


def upsample_to(scores: Tensor, height: int, width: int, coordinates: Coordinates) -> Tensor:
    """Logits at the input's size, bilinear by either rule (paper, section 4.1: labels are never shrunk)."""
    return interpolate(scores, size=(height, width), mode="bilinear", align_corners=coordinates == "align-corners")
