"""From the names in other programs' state dicts to this program's, which are torchvision's where torchvision has the network.

torchvision keeps a segmentation model's backbone below `backbone.`, without the layers behind it; a classification model's
stands bare, MobileNets below `features.`. VainF/DeepLabV3Plus-Pytorch splits MobileNetV2 into low- and high-level features that
keep their numbers, and has DeepLabv3's head one level deeper.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

Weights = dict[str, Tensor]

SPLIT_FEATURES = re.compile(r"^backbone\.(?:low|high)_level_features\.")
CLASSIFICATION = re.compile(r"^(?:fc|classifier)\.|^features\.18\.")  # what follows the features in a classification model
COUNTER = "num_batches_tracked"  # of batch norm, which old files lack


def is_segmentation(weights: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("backbone.") for name in weights)


def is_vainf(weights: Mapping[str, Tensor]) -> bool:
    """Whether a segmentation model has the names of VainF/DeepLabV3Plus-Pytorch."""
    heads = ("classifier.classifier.", "classifier.aspp.")
    return any(SPLIT_FEATURES.match(name) or name.startswith(heads) for name in weights)


def own_names(weights: Weights) -> Weights:
    """A segmentation model's weights under this program's names, which are VainF's for DeepLabv3+'s decoder."""
    plus = any(name.startswith("classifier.aspp.") for name in weights)
    renamed = {}
    for name, tensor in weights.items():
        own = SPLIT_FEATURES.sub("backbone.features.", name)
        renamed[own if plus else re.sub(r"^classifier\.classifier\.", "classifier.", own)] = tensor
    return renamed


def backbone_names(weights: Weights) -> Weights:
    """The backbone's weights alone, from a segmentation or a classification model, under the backbone's own names."""
    if is_segmentation(weights):
        whole = own_names(weights)
        return {name.removeprefix("backbone."): tensor for name, tensor in whole.items() if name.startswith("backbone.")}
    third = any(re.match(r"features\.\d+\.block\.", name) for name in weights)  # MobileNetV3's blocks; MobileNetV2's are `conv`
    kept = {name: tensor for name, tensor in weights.items() if not CLASSIFICATION.match(name)}
    return {name.removeprefix("features.") if third else name: tensor for name, tensor in kept.items()}


def printable(name: str) -> str:
    """A tensor's name for a message of one line, whatever a strange file calls it."""
    return name if name.isprintable() else repr(name)


def misfits(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What keeps `weights` from filling a network of the state dict `wanted`, worst first, as `lacks x`, `has y as well`, …"""
    missing = [name for name in wanted if name not in weights and not name.endswith(COUNTER)]
    misshapen = [name for name in wanted if name in weights and weights[name].shape != wanted[name].shape]
    return [
        *(f"lacks {name}" for name in missing),
        *(f"has {printable(name)} as well" for name in sorted(weights) if name not in wanted),
        *(f"has {name} of shape {list(weights[name].shape)}, not {list(wanted[name].shape)}" for name in misshapen),
    ]
