"""Which network a state dict belongs to, told from its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network.atrous import PAPER_RATES
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, build_backbone
from dlv3deploy.train.network.resnet import LAYOUTS, Bottleneck
from dlv3deploy.train.weights.names import Weights, backbone_names, is_vainf, misfits, own_names

Origin = Literal["torchvision", "VainF"]

KNOWN = (
    "known are torchvision's deeplabv3_resnet50, deeplabv3_resnet101, deeplabv3_mobilenet_v3_large, lraspp_mobilenet_v3_large "
    "and ImageNet's ResNets and MobileNets, and VainF/DeepLabV3Plus-Pytorch's deeplabv3 and deeplabv3plus with resnet50, "
    "resnet101 and mobilenet"
)
RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    (layout.depths, layout.block is Bottleneck): name for name, layout in LAYOUTS.items()
}
WIDTHS = (1.0, 0.35, 0.5, 0.75, 1.3, 1.4)  # of MobileNetV2, as published
TORCHVISION_RATES = (12, 24, 36)  # at output stride 8 with a ResNet, and still at 16 with MobileNetV3


@dataclass(frozen=True)
class Layout:
    """A segmentation model's weights under this program's names, and the network that takes every one of them.

    No file says its output stride and its atrous rates: `architecture` has those with which `origin` trains this network, and
    no rates where it has another number of atrous branches.
    """

    origin: Origin
    architecture: Architecture
    classes: int
    branches: int
    weights: Weights


@dataclass(frozen=True)
class BackboneLayout:
    """A backbone's weights under the backbone's own names, which `--backbone-weights` takes, and what `--backbone` calls it."""

    backbone: str
    weights: Weights


def segmentation_layout(weights: Weights, where: str) -> Layout:
    """The layout of a whole segmentation model. Raises UserError naming the first tensor that fits no known network."""
    origin: Origin = "VainF" if is_vainf(weights) else "torchvision"
    own = own_names(weights)
    architecture = _architecture(own, origin, where)
    branches = _branches(own)
    classes = _channels(own, _scores_name(architecture), where)
    fits: list[tuple[list[str], Architecture]] = []
    for width in WIDTHS if architecture.backbone == "mobilenet_v2" else WIDTHS[:1]:
        candidate = replace(architecture, width=width)
        with torch.device("meta"):
            wanted = DeepLabV3(replace(candidate, aspp_rates=(1,) * max(1, branches)), classes).state_dict()
        fits.append((misfits(own, wanted), candidate))
        if not fits[-1][0]:
            return Layout(origin, _trained_with(origin, candidate, branches), classes, branches, _complete(own, wanted))
    problems, nearest = min(fits, key=lambda fit: len(fit[0]))
    raise _unknown(where, f"{problems[0]}, read as {origin}'s {nearest}")


def backbone_layout(weights: Weights, where: str) -> BackboneLayout:
    """The layout of a backbone, alone or in a classification model. Raises UserError as `segmentation_layout` does."""
    bare = backbone_names(weights)
    name = backbone_of(bare, where)
    with torch.device("meta"):
        wanted = build_backbone(Architecture(name)).state_dict()
    if problems := misfits(bare, wanted):
        raise _unknown(where, f"{problems[0]}, read as a {name}")
    return BackboneLayout(name, _complete(bare, wanted))


def backbone_of(bare: Mapping[str, Tensor], where: str) -> str:
    """The backbone that these weights are for, as their names tell. Raises UserError."""
    if "features.0.0.weight" in bare:
        return "mobilenet_v2"
    if "0.0.weight" in bare:
        return "mobilenet_v3_large"
    if "conv1.weight" not in bare or "layer1.0.conv1.weight" not in bare:
        raise _unknown(where, "lacks the first layers of a ResNet or a MobileNet")
    blocks = {match[0] for name in bare if (match := re.match(r"layer\d+\.\d+\.", name))}
    depths = tuple(sum(block.startswith(f"layer{layer}.") for block in blocks) for layer in range(1, 5))
    name = RESNETS.get((depths, "layer1.0.conv3.weight" in bare))
    if name is None:
        raise _unknown(where, f"has a ResNet's layers, {', '.join(map(str, depths))} blocks long")
    return name


def _architecture(own: Weights, origin: Origin, where: str) -> Architecture:
    """What names and shapes tell; width, output stride and rates are still those of an Architecture that nobody asked."""
    backbone = backbone_of(backbone_names(own), where)
    auxiliary = any(name.startswith("aux_classifier.") for name in own)
    if "classifier.cbr.0.weight" in own:
        if backbone != "mobilenet_v3_large":
            raise _unknown(where, f"has an LR-ASPP head on a {backbone}")
        return Architecture(backbone, auxiliary=auxiliary, head="lraspp")
    return Architecture(
        backbone,
        aspp_channels=_channels(own, f"{_aspp(own)}.convs.0.0.weight", where),
        auxiliary=auxiliary,
        decoder="classifier.aspp.convs.0.0.weight" in own,
        early_padding=origin == "VainF" and backbone == "mobilenet_v2",
    )


def _trained_with(origin: Origin, architecture: Architecture, branches: int) -> Architecture:
    """With the output stride and the rates that the publisher has for this network."""
    if architecture.head != "aspp":
        return architecture
    if branches != len(PAPER_RATES):
        return replace(architecture, aspp_rates=())
    is_torchvisions = origin == "torchvision" and architecture.backbone in ("resnet50", "resnet101", "mobilenet_v3_large")
    return replace(
        architecture,
        output_stride=8 if is_torchvisions and architecture.backbone != "mobilenet_v3_large" else 16,
        aspp_rates=TORCHVISION_RATES if is_torchvisions else PAPER_RATES,
    )


def _aspp(own: Weights) -> str:
    return "classifier.aspp" if "classifier.aspp.convs.0.0.weight" in own else "classifier.0"


def _branches(own: Weights) -> int:
    """How many atrous convolutions ASPP has."""
    kernels = (own[name] for name in own if re.fullmatch(rf"{re.escape(_aspp(own))}\.convs\.\d+\.0\.weight", name))
    return sum(kernel.ndim == 4 and kernel.shape[2:] == (3, 3) for kernel in kernels)


def _scores_name(architecture: Architecture) -> str:
    """The last convolution's weight, one row for each class."""
    if architecture.head == "lraspp":
        return "classifier.low_classifier.weight"
    return "classifier.classifier.3.weight" if architecture.decoder else "classifier.4.weight"


def _channels(own: Weights, name: str, where: str) -> int:
    """How many channels the convolution of that weight has. Raises UserError where there is none."""
    if name not in own:
        raise _unknown(where, f"lacks {name}")
    shape = own[name].shape
    if len(shape) != 4 or not shape[0]:
        raise _unknown(where, f"has {name} of shape {list(shape)}, which is no convolution's")
    return shape[0]


def _complete(weights: Weights, wanted: Mapping[str, Tensor]) -> Weights:
    """`weights` in the network's order, with zeros for the counters that old files lack."""
    return {name: weights.get(name, torch.zeros((), dtype=torch.long)) for name in wanted}


def _unknown(where: str, problem: str) -> UserError:
    return UserError(where, f"holds no network that can be imported: it {problem}", KNOWN)
