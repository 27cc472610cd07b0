"""Which architectures can be built, and how to say that one cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network import mobilenet_v2, mobilenet_v3, resnet
from dlv3deploy.train.network.atrous import check_output_stride
from dlv3deploy.train.network.resnet import DEEPEST_BLOCK, LAST_BLOCK, LAYOUTS, STEM_STRIDE, STRIDES, Bottleneck

BACKBONES = (*LAYOUTS, "mobilenet_v2", "mobilenet_v3_large")
CASCADES = tuple(name for name, layout in LAYOUTS.items() if layout.block is Bottleneck)


def native_stride(architecture: Architecture) -> int:
    """The output stride without any atrous rate: 32, doubled by each of blocks 5 to 7."""
    if architecture.backbone in LAYOUTS:
        return STEM_STRIDE * math.prod(STRIDES) << (architecture.blocks - LAST_BLOCK)
    strides = {
        "mobilenet_v2": (mobilenet_v2.STEM_STRIDE, *(stage[3] for stage in mobilenet_v2.STAGES)),
        "mobilenet_v3_large": (mobilenet_v3.STEM_STRIDE, *(block.stride for block in mobilenet_v3.BLOCKS)),
    }
    return math.prod(strides[architecture.backbone])


def check_architecture(architecture: Architecture) -> None:
    """Raise UserError with the first reason why `architecture` cannot be built."""
    a = architecture
    if a.backbone not in BACKBONES:
        raise UserError(f"backbone {a.backbone!r}", "is unknown", f"use one of {', '.join(BACKBONES)}")
    if not LAST_BLOCK <= a.blocks <= DEEPEST_BLOCK:
        raise UserError(f"{a.blocks} blocks", f"a cascade ends at block {LAST_BLOCK} to {DEEPEST_BLOCK}", "use --blocks 7")
    for given, rule, remedy in _misfits(a):
        raise UserError(f"{given} with backbone {a.backbone}, head {a.head}", rule, remedy)
    check_output_stride(a.output_stride, native_stride(a))
    if min(a.aspp_rates, default=1) < 1 or (a.head == "deeplabv2" and not a.aspp_rates):
        raise UserError(f"ASPP rates {a.aspp_rates}", "are whole numbers of 1 or more", "the paper's are 6,12,18")
    if a.aspp_channels < 1:
        raise UserError(f"{a.aspp_channels} ASPP channels", "are too few", "the paper has 256")
    if not 0 < a.width <= 4:
        raise UserError(f"width {a.width:g}", "multiplies the channels by more than 0 and at most 4", "use --width 1.0")


def _misfits(a: Architecture) -> Iterator[tuple[str, str, str]]:
    """What does not go together: (given, rule, remedy)."""
    networks = " or ".join(CASCADES)
    if a.backbone not in CASCADES and (a.blocks > LAST_BLOCK or a.multi_grid):
        given = f"block {a.blocks}" if a.blocks > LAST_BLOCK else f"multi-grid {a.multi_grid}"
        yield given, f"blocks of three 3×3 convolutions are those of {networks}", f"use --backbone {CASCADES[0]}"
    if a.multi_grid is not None and (len(a.multi_grid) != resnet.LAYOUTS[CASCADES[0]].depths[-1] or min(a.multi_grid) < 1):
        yield f"multi-grid {a.multi_grid}", "is three whole numbers of 1 or more", "the paper's best are 1,2,1 and 1,2,4"
    if a.blocks > LAST_BLOCK and a.multi_grid is None:
        yield f"block {a.blocks} without a multi-grid", "replicas of block 4 need unit rates", "use --multi-grid 1,1,1"
    if a.head == "lraspp" and a.backbone != "mobilenet_v3_large":
        yield "LR-ASPP", "is MobileNetV3's head", "use --backbone mobilenet_v3_large or --head aspp"
    if a.decoder and a.head != "aspp":
        yield "DeepLabv3+'s decoder", "stands behind ASPP", "use --head aspp, or leave --decoder out"
    if a.backbone == "mobilenet_v3_large" and a.width != 1:
        yield f"width {a.width:g}", "multiplies the channels of MobileNetV2 and ResNets", "use --backbone mobilenet_v2"
    if a.backbone != "mobilenet_v2" and a.early_padding:
        yield "early padding", "belongs to MobileNetV2's blocks", "leave it out"
