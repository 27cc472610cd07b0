"""Which architectures can be built, and how to say that one cannot; without torch, so that it is said at once."""

from __future__ import annotations

from collections.abc import Iterator

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network.atrous import check_output_stride

CASCADES = ("resnet50", "resnet101")  # whose blocks have three 3×3 convolutions, and so can be replicated and take a multi-grid
BACKBONES = ("resnet18", "resnet34", *CASCADES, "mobilenet_v2", "mobilenet_v3_large")
NATIVE_STRIDE = 32  # of every backbone as it was published
LAST_BLOCK = 4  # of the published ResNets
DEEPEST_BLOCK = 7  # of the paper's cascades
UNIT_RATES = 3  # in a multi-grid: one for each 3×3 convolution of a block
DROPOUT = 0.5  # torchvision's, behind ASPP's projection; the paper names none


def native_stride(architecture: Architecture) -> int:
    """The output stride without any atrous rate: 32, doubled by each of blocks 5 to 7."""
    return NATIVE_STRIDE << max(0, architecture.blocks - LAST_BLOCK)


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
    if a.multi_grid is not None and (len(a.multi_grid) != UNIT_RATES or min(a.multi_grid) < 1):
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


def idle_settings(a: Architecture) -> dict[str, str]:
    """The settings of an architecture, and `dropout`, that a network of this kind has no use for, each with the reason."""
    aspp = ("aspp_rates", "aspp_channels", "aspp_batch_norm", "image_pooling", "final_convolution", "dropout")
    if a.head == "cascade":
        return dict.fromkeys(aspp, "a cascade has no ASPP, only a 1×1 convolution to scores")
    if a.head == "lraspp":
        return dict.fromkeys(aspp, "LR-ASPP has no atrous convolutions, and layers that are always the same")
    if a.head == "deeplabv2":
        return dict.fromkeys(aspp[1:], "DeepLabv2 has a convolution to scores for each rate, and nothing else")
    return {"final_convolution": "the decoder has a 3×3 convolution of its own"} if a.decoder else {}
