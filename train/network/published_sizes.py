"""Published sizes of the networks that can be built here, and the same figures counted on ours.

A classifier's figures belong to a backbone with its ImageNet head, which is built here for the count alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network.cost import Cost, cost_of
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, TrainingForward, build_backbone
from dlv3deploy.train.network.width import multiple_of_eight

TORCHVISION = "torchvision"
SLIM = "TF-slim, MobileNetV2"
SANDLER = "Sandler et al. 2018, Table 7"
VAINF = "VainF/DeepLabV3Plus-Pytorch"
VOC_CLASSES, IMAGENET_CLASSES = 21, 1000


@dataclass(frozen=True)
class Entry:
    """Published `parameters` in millions and `macs` in thousands of millions, as printed; None where none is."""

    name: str
    architecture: Architecture
    size: int
    parameters: float | None
    macs: float | None
    source: str
    classifier: bool = False


@dataclass(frozen=True)
class Row:
    entry: Entry
    ours: Cost


def _torchvision(name: str, architecture: Architecture, parameters: float, macs: float) -> Entry:
    return Entry(name, architecture, 520, parameters, macs, TORCHVISION)


def _vainf(backbone: str, decoder: bool, macs: float) -> Entry:
    name = f"deeplabv3{'plus' if decoder else ''}_{backbone.removesuffix('_v2')}"
    architecture = Architecture(backbone, 16, decoder=decoder, early_padding=backbone == "mobilenet_v2")
    return Entry(name, architecture, 513, None, macs, VAINF)


def _classifier(backbone: str, parameters: float, macs: float, source: str = TORCHVISION, width: float = 1.0) -> Entry:
    name = backbone if width == 1 else f"{backbone} × {width:g}"
    return Entry(name, Architecture(backbone, 32, width=width), 224, parameters, macs, source, classifier=True)


SMALL = Architecture("mobilenet_v2", 16, aspp_rates=(), final_convolution=False)  # 1×1 and image pooling instead of ASPP

PUBLISHED = (
    _torchvision("deeplabv3_resnet50", Architecture("resnet50", 8, (12, 24, 36), auxiliary=True), 42.004074, 178.722),
    _torchvision("deeplabv3_resnet101", Architecture("resnet101", 8, (12, 24, 36), auxiliary=True), 60.996202, 258.743),
    _torchvision(
        "deeplabv3_mobilenet_v3_large",
        Architecture("mobilenet_v3_large", 16, (12, 24, 36), auxiliary=True),
        11.029328,
        10.452,
    ),
    _torchvision("lraspp_mobilenet_v3_large", Architecture("mobilenet_v3_large", 16, head="lraspp"), 3.221538, 2.086),
    *(_vainf("mobilenet_v2", decoder, macs) for decoder, macs in ((False, 6.0), (True, 17.0))),
    *(_vainf("resnet50", decoder, macs) for decoder, macs in ((False, 51.4), (True, 62.7))),
    *(_vainf("resnet101", decoder, macs) for decoder, macs in ((False, 72.1), (True, 83.4))),
    Entry("MobileNetV2, image pooling", SMALL, 513, 2.11, 2.75, SANDLER),
    _classifier("resnet18", 11.689512, 1.814),
    _classifier("resnet34", 21.797672, 3.664),
    _classifier("resnet50", 25.557032, 4.089),
    _classifier("resnet101", 44.54916, 7.801),
    _classifier("mobilenet_v3_large", 5.483032, 0.217),
    _classifier("mobilenet_v2", 3.504872, 0.301),
    _classifier("mobilenet_v2", 6.06, 0.582, SLIM, 1.4),
    _classifier("mobilenet_v2", 5.34, 0.509, SLIM, 1.3),
    _classifier("mobilenet_v2", 2.61, 0.209, SLIM, 0.75),
    _classifier("mobilenet_v2", 1.95, 0.097, SLIM, 0.5),
    _classifier("mobilenet_v2", 1.66, 0.059, SLIM, 0.35),
)


def counted() -> Iterator[Row]:
    """Every published network, built and counted without memory for its weights."""
    for entry in PUBLISHED:
        with torch.device("meta"):
            network = _ImageNet(entry.architecture) if entry.classifier else _segmenter(entry.architecture)
        yield Row(entry, cost_of(network, entry.size, entry.size))


def _segmenter(architecture: Architecture) -> nn.Module:
    """The network as it was published: torchvision counts the auxiliary head, which only training needs, as well."""
    model = DeepLabV3(architecture, VOC_CLASSES)
    return TrainingForward(model) if architecture.auxiliary else model


class _ImageNet(nn.Module):
    """A backbone with the head that its ImageNet weights have."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = build_backbone(architecture)
        self.head = nn.Sequential(*_imagenet_head(architecture, self.backbone.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.backbone(x).high)
        return scores


def _imagenet_head(architecture: Architecture, inputs: int) -> list[nn.Module]:
    pooled: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    to_classes = partial(nn.Linear, out_features=IMAGENET_CLASSES)
    if architecture.backbone == "mobilenet_v2":
        last = multiple_of_eight(1280 * max(1.0, architecture.width))
        return [nn.Conv2d(inputs, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU6(), *pooled, to_classes(last)]
    if architecture.backbone == "mobilenet_v3_large":
        return [*pooled, nn.Linear(inputs, 1280), nn.Hardswish(), to_classes(1280)]
    return [*pooled, to_classes(inputs)]
