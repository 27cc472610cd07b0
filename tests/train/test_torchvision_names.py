"""Weights under torchvision's names: every name and shape, and what the network computes from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, build_backbone

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, Tensor]


def batch_norm_names(name: str, channels: int) -> Shapes:
    shapes: Shapes = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**shapes, f"{name}.num_batches_tracked": ()}


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
                names |= {f"{at}.downsample.0.weight": (width, inputs, 1, 1)} | batch_norm_names(f"{at}.downsample.1", width)
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
                names |= {f"{at}.downsample.0.weight": (4 * width, inputs, 1, 1)}
                names |= batch_norm_names(f"{at}.downsample.1", 4 * width)
            inputs = 4 * width
    return names


# expansion, outputs of torchvision's features.1 to features.17
INVERTED_RESIDUALS = [
    (1, 16), (6, 24), (6, 24), (6, 32), (6, 32), (6, 32), (6, 64), (6, 64), (6, 64), (6, 64),
    (6, 96), (6, 96), (6, 96), (6, 160), (6, 160), (6, 160), (6, 320),
]  # fmt: skip


def mobilenet_names() -> Shapes:
    """torchvision's mobilenet_v2 up to features.17."""
    names: Shapes = {"features.0.0.weight": (32, 3, 3, 3), **batch_norm_names("features.0.1", 32)}
    inputs = 32
    for number, (expansion, outputs) in enumerate(INVERTED_RESIDUALS, 1):
        at, hidden, part = f"features.{number}.conv", inputs * expansion, 0
        if expansion > 1:
            names |= {f"{at}.0.0.weight": (hidden, inputs, 1, 1), **batch_norm_names(f"{at}.0.1", hidden)}
            part = 1
        names |= {f"{at}.{part}.0.weight": (hidden, 1, 3, 3), **batch_norm_names(f"{at}.{part}.1", hidden)}
        names |= {f"{at}.{part + 1}.weight": (outputs, hidden, 1, 1), **batch_norm_names(f"{at}.{part + 2}", outputs)}
        inputs = outputs
    return names


def head_names(inputs: int, channels: int, classes: int, rates: int = 3) -> Shapes:
    """torchvision's DeepLabHead."""
    names: Shapes = {"0.convs.0.0.weight": (channels, inputs, 1, 1), **batch_norm_names("0.convs.0.1", channels)}
    for branch in range(1, rates + 1):
        names |= {f"0.convs.{branch}.0.weight": (channels, inputs, 3, 3), **batch_norm_names(f"0.convs.{branch}.1", channels)}
    pooling = f"0.convs.{rates + 1}"
    names |= {f"{pooling}.1.weight": (channels, inputs, 1, 1), **batch_norm_names(f"{pooling}.2", channels)}
    names |= {"0.project.0.weight": (channels, (rates + 2) * channels, 1, 1), **batch_norm_names("0.project.1", channels)}
    names |= {"1.weight": (channels, channels, 3, 3), **batch_norm_names("2", channels)}
    return {**names, "4.weight": (classes, channels, 1, 1), "4.bias": (classes,)}


def auxiliary_names(inputs: int, classes: int) -> Shapes:
    """torchvision's FCNHead."""
    inner = inputs // 4
    names: Shapes = {"0.weight": (inner, inputs, 3, 3), **batch_norm_names("1", inner)}
    return {**names, "4.weight": (classes, inner, 1, 1), "4.bias": (classes,)}


def below(prefix: str, names: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in names.items()}


def shapes_of(weights: Weights) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


@pytest.mark.parametrize(("backbone", "depths"), [("resnet50", (3, 4, 6, 3)), ("resnet101", (3, 4, 23, 3))])
def test_a_deeplabv3_resnet_has_torchvisions_names_and_shapes(backbone: str, depths: tuple[int, ...]) -> None:
    expected = (
        below("backbone", bottleneck_resnet_names(depths))
        | below("classifier", head_names(2048, 256, 21))
        | below("aux_classifier", auxiliary_names(1024, 21))
    )
    with torch.device("meta"):
        model = DeepLabV3(Architecture(backbone, 8, (12, 24, 36), auxiliary=True), 21)
    assert shapes_of(model.state_dict()) == expected


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet18", basic_resnet_names((2, 2, 2, 2))),
        ("resnet34", basic_resnet_names((3, 4, 6, 3))),
        ("mobilenet_v2", mobilenet_names()),
    ],
)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_a_backbone_has_torchvisions_names_and_shapes(backbone: str, expected: Shapes, output_stride: int) -> None:
    with torch.device("meta"):
        network = build_backbone(Architecture(backbone, output_stride))
    assert shapes_of(network.state_dict()) == expected


def random_weights(names: Shapes, seed: int) -> Weights:
    """Weights that keep signals near unit size, with batch-norm statistics that are not the identity's."""
    random = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for name, shape in names.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            weights[name] = torch.rand(shape, generator=random) + 0.5
        elif len(shape) == 4:
            fan_in = shape[1] * shape[2] * shape[3]
            weights[name] = torch.randn(shape, generator=random) * (2 / fan_in) ** 0.5
        elif name.endswith("weight"):
            weights[name] = torch.rand(shape, generator=random) * 0.5 + 0.5
        else:
            weights[name] = torch.randn(shape, generator=random) * 0.1
    return weights


class ByName:
    """Operations of torch.nn.functional on weights that are looked up by torchvision's names."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def conv(self, x: Tensor, name: str, stride: int = 1, rate: int = 1, groups: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        padding = rate * (weight.shape[2] // 2)
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"), stride, padding, rate, groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (self.weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)

    def resnet_stem(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.norm(self.conv(x, "backbone.conv1", 2), "backbone.bn1")), 3, 2, 1)

    def shortcut(self, x: Tensor, at: str, stride: int) -> Tensor:
        if f"{at}.downsample.0.weight" not in self.weights:
            return x
        return self.norm(self.conv(x, f"{at}.downsample.0", stride), f"{at}.downsample.1")

    def basic_block(self, x: Tensor, at: str, stride: int, first: int, second: int) -> Tensor:
        y = F.relu(self.norm(self.conv(x, f"{at}.conv1", stride, first), f"{at}.bn1"))
        return F.relu(self.norm(self.conv(y, f"{at}.conv2", 1, second), f"{at}.bn2") + self.shortcut(x, at, stride))

    def bottleneck(self, x: Tensor, at: str, stride: int, rate: int) -> Tensor:
        y = F.relu(self.norm(self.conv(x, f"{at}.conv1"), f"{at}.bn1"))
        y = F.relu(self.norm(self.conv(y, f"{at}.conv2", stride, rate), f"{at}.bn2"))
        return F.relu(self.norm(self.conv(y, f"{at}.conv3"), f"{at}.bn3") + self.shortcut(x, at, stride))

    def inverted_residual(self, x: Tensor, number: int, stride: int, rate: int) -> Tensor:
        at, y, part = f"backbone.features.{number}.conv", x, 0
        if number > 1:
            y, part = F.relu6(self.norm(self.conv(x, f"{at}.0.0"), f"{at}.0.1")), 1
        y = F.relu6(self.norm(self.conv(y, f"{at}.{part}.0", stride, rate, groups=y.shape[1]), f"{at}.{part}.1"))
        y = self.norm(self.conv(y, f"{at}.{part + 1}"), f"{at}.{part + 2}")
        return x + y if y.shape == x.shape else y

    def head(self, x: Tensor, rates: tuple[int, ...]) -> Tensor:
        at = "classifier.0.convs"
        branches = [F.relu(self.norm(self.conv(x, f"{at}.0.0"), f"{at}.0.1"))]
        for branch, rate in enumerate(rates, 1):
            branches.append(F.relu(self.norm(self.conv(x, f"{at}.{branch}.0", 1, rate), f"{at}.{branch}.1")))
        pooling = f"{at}.{len(rates) + 1}"
        pooled = F.relu(self.norm(self.conv(x.mean((2, 3), keepdim=True), f"{pooling}.1"), f"{pooling}.2"))
        branches.append(F.interpolate(pooled, size=x.shape[2:], mode="bilinear", align_corners=False))
        y = F.relu(self.norm(self.conv(torch.cat(branches, 1), "classifier.0.project.0"), "classifier.0.project.1"))
        y = F.relu(self.norm(self.conv(y, "classifier.1"), "classifier.2"))
        return self.conv(y, "classifier.4")


def resnet18_at_16(net: ByName, x: Tensor) -> Tensor:
    x = net.resnet_stem(x)
    for at, stride, first, second in (
        ("layer1.0", 1, 1, 1), ("layer1.1", 1, 1, 1), ("layer2.0", 2, 1, 1), ("layer2.1", 1, 1, 1),
        ("layer3.0", 2, 1, 1), ("layer3.1", 1, 1, 1), ("layer4.0", 1, 1, 2), ("layer4.1", 1, 2, 2),
    ):  # fmt: skip
        x = net.basic_block(x, f"backbone.{at}", stride, first, second)
    return net.head(x, (6, 12, 18))


def resnet50_at_8(net: ByName, x: Tensor) -> Tensor:
    x = net.resnet_stem(x)
    for layer, depth, stride, first, later in ((1, 3, 1, 1, 1), (2, 4, 2, 1, 1), (3, 6, 1, 1, 2), (4, 3, 1, 2, 4)):
        for block in range(depth):
            place = (stride, first) if block == 0 else (1, later)
            x = net.bottleneck(x, f"backbone.layer{layer}.{block}", *place)
    return net.head(x, (12, 24, 36))


def mobilenet_at_16(net: ByName, x: Tensor) -> Tensor:
    x = F.relu6(net.norm(net.conv(x, "backbone.features.0.0", 2), "backbone.features.0.1"))
    for number in range(1, 18):
        x = net.inverted_residual(x, number, 2 if number in (2, 4, 7) else 1, 2 if number in (15, 16, 17) else 1)
    return net.head(x, (6, 12, 18))


def forward_cases() -> Iterator[tuple[Architecture, Shapes, Callable[[ByName, Tensor], Tensor]]]:
    yield Architecture("resnet18", 16, (6, 12, 18), 16), basic_resnet_names((2, 2, 2, 2)), resnet18_at_16
    yield Architecture("resnet50", 8, (12, 24, 36), 16), bottleneck_resnet_names((3, 4, 6, 3)), resnet50_at_8
    yield Architecture("mobilenet_v2", 16, (6, 12, 18), 16), mobilenet_names(), mobilenet_at_16


@pytest.mark.parametrize(
    ("architecture", "backbone_names", "reference"), list(forward_cases()), ids=lambda c: getattr(c, "backbone", "")
)
def test_weights_under_torchvisions_names_compute_what_functional_calls_compute(
    architecture: Architecture, backbone_names: Shapes, reference: Callable[[ByName, Tensor], Tensor]
) -> None:
    features = {"resnet18": 512, "resnet50": 2048, "mobilenet_v2": 320}[architecture.backbone]
    names = below("backbone", backbone_names) | below("classifier", head_names(features, 16, 5))
    weights = random_weights(names, seed=1)
    image = torch.randn(2, 3, 64, 97, generator=torch.Generator().manual_seed(2))
    model = DeepLabV3(architecture, 5).eval()
    model.load_state_dict(weights)
    with torch.inference_mode():
        scores, expected = model(image), reference(ByName(weights), image)
    assert expected.std() > 0.1
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
