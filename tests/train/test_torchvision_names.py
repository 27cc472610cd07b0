"""Weights under torchvision's names: every name and shape, and what the network computes from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from by_name import ByName, random_weights, shapes_of
from published_names import Shapes, backbone_names, below, head_names, parameters, torchvision_lraspp_names, torchvision_names
from torch import Tensor

from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, build_backbone

PUBLISHED_PARAMETERS = {"resnet50": 42_004_074, "resnet101": 60_996_202, "mobilenet_v3_large": 11_029_328}


@pytest.mark.parametrize("backbone", PUBLISHED_PARAMETERS)
def test_a_deeplabv3_has_torchvisions_names_and_shapes(backbone: str) -> None:
    expected = torchvision_names(backbone)
    with torch.device("meta"):
        model = DeepLabV3(Architecture(backbone, 16, (12, 24, 36), auxiliary=True), 21)
    assert shapes_of(model.state_dict()) == expected
    assert sum(p.numel() for p in model.parameters()) == parameters(expected) == PUBLISHED_PARAMETERS[backbone]


def test_an_lraspp_has_torchvisions_names_and_shapes() -> None:
    with torch.device("meta"):
        model = DeepLabV3(Architecture("mobilenet_v3_large", head="lraspp"), 21)
    assert shapes_of(model.state_dict()) == torchvision_lraspp_names()
    assert sum(p.numel() for p in model.parameters()) == parameters(torchvision_lraspp_names()) == 3_221_538


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "mobilenet_v2", "mobilenet_v3_large"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_a_backbone_has_torchvisions_names_and_shapes(backbone: str, output_stride: int) -> None:
    with torch.device("meta"):
        network = build_backbone(Architecture(backbone, output_stride))
    assert shapes_of(network.state_dict()) == backbone_names(backbone)


def resnet18_at_16(net: ByName, x: Tensor) -> Tensor:
    x = net.resnet_stem(x)
    for at, stride, first, second in (
        ("layer1.0", 1, 1, 1), ("layer1.1", 1, 1, 1), ("layer2.0", 2, 1, 1), ("layer2.1", 1, 1, 1),
        ("layer3.0", 2, 1, 1), ("layer3.1", 1, 1, 1), ("layer4.0", 1, 1, 2), ("layer4.1", 1, 2, 2),
    ):  # fmt: skip
        x = net.basic_block(x, f"backbone.{at}", stride, first, second)
    return net.head(x, (6, 12, 18))


def resnet50_at_8(net: ByName, x: Tensor) -> Tensor:
    return net.head(net.bottleneck_resnet(x, (3, 4, 6, 3), 8)[3], (12, 24, 36))


def mobilenet_at_16(net: ByName, x: Tensor) -> Tensor:
    x = F.relu6(net.conv_norm(x, "backbone.features.0", 2))
    for number in range(1, 18):
        x = net.inverted_residual(x, number, 2 if number in (2, 4, 7) else 1, 2 if number in (15, 16, 17) else 1)
    return net.head(x, (6, 12, 18))


def forward_cases() -> Iterator[tuple[Architecture, int, Callable[[ByName, Tensor], Tensor]]]:
    yield Architecture("resnet18", 16, (6, 12, 18), 16), 512, resnet18_at_16
    yield Architecture("resnet50", 8, (12, 24, 36), 16), 2048, resnet50_at_8
    yield Architecture("mobilenet_v2", 16, (6, 12, 18), 16), 320, mobilenet_at_16


@pytest.mark.parametrize(
    ("architecture", "features", "reference"), list(forward_cases()), ids=lambda c: getattr(c, "backbone", "")
)
def test_weights_under_torchvisions_names_compute_what_functional_calls_compute(
    architecture: Architecture, features: int, reference: Callable[[ByName, Tensor], Tensor]
) -> None:
    names: Shapes = below("backbone", backbone_names(architecture.backbone)) | below("classifier", head_names(features, 16, 5))
    weights = random_weights(names, seed=1)
    image = torch.randn(2, 3, 64, 97, generator=torch.Generator().manual_seed(2))
    model = DeepLabV3(architecture, 5).eval()
    model.load_state_dict(weights)
    with torch.inference_mode():
        scores, expected = model(image), reference(ByName(weights), image)
    assert expected.std() > 0.1
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
