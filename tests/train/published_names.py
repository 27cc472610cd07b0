"""Names and shapes of published networks, as tables that owe nothing to train/.

torchvision's DeepLabv3, LR-ASPP and classification models, and VainF/DeepLabV3Plus-Pytorch's DeepLabv3 and v3+.
"""

from __future__ import annotations

import torch

Shapes = dict[str, tuple[int, ...]]


def batch_norm_names(name: str, channels: int) -> Shapes:
    shapes: Shapes = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**shapes, f"{name}.num_batches_tracked": ()}


def convolution_names(name: str, outputs: int, inputs: int, kernel: int) -> Shapes:
    """A convolution without bias under `name`.0 and its batch norm under `name`.1."""
    return {f"{name}.0.weight": (outputs, inputs, kernel, kernel), **batch_norm_names(f"{name}.1", outputs)}


def basic_resnet_names(depths: tuple[int, ...]) -> Shapes:
    """torchvision's resnet18 and resnet34 without fc."""
    names: Shapes = {"conv1.weight": (64, 3, 7, 7), **batch_norm_names("bn1", 64)}
    inputs = 64
    for layer, depth in enumerate(depths, 1):
        width = 64 * 2 ** (layer - 1)
        for block in range(depth):
            at = f"layer{layer}.{block}"
            names |= {f"{at}.conv1.weight": (width, inputs, 3, 3), f"{at}.conv2.weight": (width, width, 3, 3)}
            names |= batch_norm_names(f"{at}.bn1", width) | batch_norm_names(f"{at}.bn2", width)
            if block == 0 and layer > 1:
                names |= convolution_names(f"{at}.downsample", width, inputs, 1)
            inputs = width
    return names


def bottleneck_resnet_names(depths: tuple[int, ...]) -> Shapes:
    """torchvision's resnet50 and resnet101 without fc."""
    names: Shapes = {"conv1.weight": (64, 3, 7, 7), **batch_norm_names("bn1", 64)}
    inputs = 64
    for layer, depth in enumerate(depths, 1):
        width = 64 * 2 ** (layer - 1)
        for block in range(depth):
            at = f"layer{layer}.{block}"
            names |= {
                f"{at}.conv1.weight": (width, inputs, 1, 1),
                f"{at}.conv2.weight": (width, width, 3, 3),
                f"{at}.conv3.weight": (4 * width, width, 1, 1),
            }
            for norm, channels in (("bn1", width), ("bn2", width), ("bn3", 4 * width)):
                names |= batch_norm_names(f"{at}.{norm}", channels)
            if block == 0:
                names |= convolution_names(f"{at}.downsample", 4 * width, inputs, 1)
            inputs = 4 * width
    return names


RESNET_DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}

# expansion, outputs of torchvision's features.1 to features.17
INVERTED_RESIDUALS = [
    (1, 16), (6, 24), (6, 24), (6, 32), (6, 32), (6, 32), (6, 64), (6, 64), (6, 64), (6, 64),
    (6, 96), (6, 96), (6, 96), (6, 160), (6, 160), (6, 160), (6, 320),
]  # fmt: skip


def mobilenet_names() -> Shapes:
    """torchvision's mobilenet_v2 up to features.17."""
    names = convolution_names("features.0", 32, 3, 3)
    inputs = 32
    for number, (expansion, outputs) in enumerate(INVERTED_RESIDUALS, 1):
        at, hidden, part = f"features.{number}.conv", inputs * expansion, 0
        if expansion > 1:
            names |= convolution_names(f"{at}.0", hidden, inputs, 1)
            part = 1
        names |= convolution_names(f"{at}.{part}", hidden, 1, 3)
        names |= {f"{at}.{part + 1}.weight": (outputs, hidden, 1, 1), **batch_norm_names(f"{at}.{part + 2}", outputs)}
        inputs = outputs
    return names


# kernel, expanded, outputs, squeezed (0 without squeeze-excitation), of torchvision's mobilenet_v3_large, features.1 to .15
BOTTLENECKS = [
    (3, 16, 16, 0), (3, 64, 24, 0), (3, 72, 24, 0), (5, 72, 40, 24), (5, 120, 40, 32), (5, 120, 40, 32), (3, 240, 80, 0),
    (3, 200, 80, 0), (3, 184, 80, 0), (3, 184, 80, 0), (3, 480, 112, 120), (3, 672, 112, 168), (5, 672, 160, 168),
    (5, 960, 160, 240), (5, 960, 160, 240),
]  # fmt: skip


def mobilenet_v3_names() -> Shapes:
    """torchvision's mobilenet_v3_large().features."""
    names = convolution_names("0", 16, 3, 3)
    inputs = 16
    for number, (kernel, expanded, outputs, squeezed) in enumerate(BOTTLENECKS, 1):
        at, part = f"{number}.block", 0
        if expanded != inputs:
            names |= convolution_names(f"{at}.0", expanded, inputs, 1)
            part = 1
        names |= convolution_names(f"{at}.{part}", expanded, 1, kernel)
        if squeezed:
            part += 1
            names |= {f"{at}.{part}.fc1.weight": (squeezed, expanded, 1, 1), f"{at}.{part}.fc1.bias": (squeezed,)}
            names |= {f"{at}.{part}.fc2.weight": (expanded, squeezed, 1, 1), f"{at}.{part}.fc2.bias": (expanded,)}
        names |= convolution_names(f"{at}.{part + 1}", outputs, expanded, 1)
        inputs = outputs
    return names | convolution_names("16", 960, inputs, 1)


def backbone_names(backbone: str) -> Shapes:
    if backbone.startswith("mobilenet"):
        return mobilenet_names() if backbone == "mobilenet_v2" else mobilenet_v3_names()
    names = basic_resnet_names if backbone in ("resnet18", "resnet34") else bottleneck_resnet_names
    return names(RESNET_DEPTHS[backbone])


def aspp_names(inputs: int, channels: int, rates: int = 3) -> Shapes:
    names = convolution_names("convs.0", channels, inputs, 1)
    for branch in range(1, rates + 1):
        names |= convolution_names(f"convs.{branch}", channels, inputs, 3)
    pooling = f"convs.{rates + 1}"
    names |= {f"{pooling}.1.weight": (channels, inputs, 1, 1), **batch_norm_names(f"{pooling}.2", channels)}
    return names | convolution_names("project", channels, (rates + 2) * channels, 1)


def head_names(inputs: int, channels: int, classes: int, rates: int = 3) -> Shapes:
    """torchvision's DeepLabHead."""
    names = below("0", aspp_names(inputs, channels, rates))
    names |= {"1.weight": (channels, channels, 3, 3), **batch_norm_names("2", channels)}
    return {**names, "4.weight": (classes, channels, 1, 1), "4.bias": (classes,)}


def auxiliary_names(inputs: int, classes: int) -> Shapes:
    """torchvision's FCNHead."""
    inner = inputs // 4
    names: Shapes = {"0.weight": (inner, inputs, 3, 3), **batch_norm_names("1", inner)}
    return {**names, "4.weight": (classes, inner, 1, 1), "4.bias": (classes,)}


def lraspp_names(classes: int) -> Shapes:
    """torchvision's LRASPPHead on MobileNetV3-Large."""
    names = convolution_names("cbr", 128, 960, 1) | {"scale.1.weight": (128, 960, 1, 1)}
    names |= {"low_classifier.weight": (classes, 40, 1, 1), "low_classifier.bias": (classes,)}
    return names | {"high_classifier.weight": (classes, 128, 1, 1), "high_classifier.bias": (classes,)}


def decoder_names(inputs: int, low_inputs: int, channels: int, classes: int) -> Shapes:
    """VainF's DeepLabHeadV3Plus."""
    names = convolution_names("project", 48, low_inputs, 1) | below("aspp", aspp_names(inputs, channels))
    names |= convolution_names("classifier", channels, channels + 48, 3)
    return {**names, "classifier.3.weight": (classes, channels, 1, 1), "classifier.3.bias": (classes,)}


def below(prefix: str, names: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in names.items()}


HIGH_CHANNELS = {"resnet18": 512, "resnet34": 512, "mobilenet_v2": 320, "mobilenet_v3_large": 960}  # 2048 for the others
MIDDLE_CHANNELS = {"mobilenet_v3_large": 40}  # 1024 for torchvision's others


def torchvision_names(backbone: str, channels: int = 256, classes: int = 21, auxiliary: bool = True) -> Shapes:
    """torchvision's deeplabv3_… of that backbone, whose ASPP has 256 channels; published with the auxiliary head."""
    names = below("backbone", backbone_names(backbone))
    names |= below("classifier", head_names(HIGH_CHANNELS.get(backbone, 2048), channels, classes))
    return names | (below("aux_classifier", auxiliary_names(MIDDLE_CHANNELS.get(backbone, 1024), classes)) if auxiliary else {})


def torchvision_lraspp_names(classes: int = 21) -> Shapes:
    """torchvision's lraspp_mobilenet_v3_large."""
    return below("backbone", mobilenet_v3_names()) | below("classifier", lraspp_names(classes))


def vainf_names(backbone: str, plus: bool, channels: int = 256, classes: int = 21) -> Shapes:
    """VainF's deeplabv3_… and deeplabv3plus_…, whose ASPP has 256 channels too."""
    high, low = (320, 24) if backbone == "mobilenet_v2" else (2048, 256)
    names = {_split(name): shape for name, shape in below("backbone", backbone_names(backbone)).items()}
    if plus:
        return names | below("classifier", decoder_names(high, low, channels, classes))
    return names | below("classifier.classifier", head_names(high, channels, classes))


def _split(name: str) -> str:
    """VainF cuts MobileNetV2's features before the fifth; both parts keep the numbers."""
    if not name.startswith("backbone.features."):
        return name
    number = int(name.split(".")[2])
    return name.replace("features", "low_level_features" if number < 4 else "high_level_features", 1)


def classifier_names(backbone: str) -> Shapes:
    """torchvision's ImageNet classification models."""
    if backbone == "mobilenet_v2":
        names = mobilenet_names() | convolution_names("features.18", 1280, 320, 1)
        return names | {"classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}
    if backbone == "mobilenet_v3_large":
        names = below("features", mobilenet_v3_names())
        names |= {"classifier.0.weight": (1280, 960), "classifier.0.bias": (1280,)}
        return names | {"classifier.3.weight": (1000, 1280), "classifier.3.bias": (1000,)}
    return backbone_names(backbone) | {"fc.weight": (1000, HIGH_CHANNELS.get(backbone, 2048)), "fc.bias": (1000,)}


def parameters(names: Shapes) -> int:
    """How many numbers training changes: batch norm's statistics are none."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return sum(torch.Size(shape).numel() for name, shape in names.items() if not name.endswith(statistics))
