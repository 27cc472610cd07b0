"""The network's size and shape: published parameter counts, output strides and atrous rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_runs import lively_model
from torch import nn

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network.atrous import aspp_rates_at
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, build_backbone

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2")


def parameters_of(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("backbone", "published"), [("resnet50", 42_004_074), ("resnet101", 60_996_202)])
def test_deeplabv3_with_auxiliary_head_has_torchvisions_parameter_count(backbone: str, published: int) -> None:
    with torch.device("meta"):
        model = DeepLabV3(Architecture(backbone, 8, (12, 24, 36), auxiliary=True), 21)
    assert parameters_of(model) == published


@pytest.mark.parametrize(
    ("backbone", "published"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032), ("resnet101", 44_549_160)],
)
def test_a_resnet_with_imagenets_classifier_has_the_published_parameter_count(backbone: str, published: int) -> None:
    with torch.device("meta"):
        features = build_backbone(Architecture(backbone, 32))
        classifier = nn.Linear(features.out_channels, 1000)
    assert parameters_of(features) + parameters_of(classifier) == published


def test_mobilenet_v2_with_its_last_layer_and_classifier_has_the_published_parameter_count() -> None:
    with torch.device("meta"):
        features = build_backbone(Architecture("mobilenet_v2", 32))
        last = nn.Sequential(nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.Linear(1280, 1000))
    assert parameters_of(features) + parameters_of(last) == 3_504_872


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_are_the_input_divided_by_the_output_stride(backbone: str, output_stride: int) -> None:
    channels = {"resnet18": 512, "resnet34": 512, "mobilenet_v2": 320}.get(backbone, 2048)
    with torch.device("meta"):
        network = build_backbone(Architecture(backbone, output_stride))
        for height, width in ((64, 96), (65, 97)):
            features = network(torch.zeros(1, 3, height, width)).high
            assert features.shape == (1, channels, -(-height // output_stride), -(-width // output_stride))


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_early_padding_leaves_the_first_convolution_without_any(output_stride: int) -> None:
    with torch.device("meta"):
        network = build_backbone(Architecture("mobilenet_v2", output_stride, early_padding=True))
        for height, width in ((64, 96), (65, 97)):
            features = network(torch.zeros(1, 3, height, width)).high
            assert features.shape == (1, 320, height // output_stride, width // output_stride)


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 256), ("resnet50", 1024), ("mobilenet_v2", 96)])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_the_auxiliary_head_reads_the_middle_features(backbone: str, channels: int, output_stride: int) -> None:
    with torch.device("meta"):
        middle = build_backbone(Architecture(backbone, output_stride))(torch.zeros(1, 3, 64, 96)).middle
    assert middle.shape == (1, channels, 64 // output_stride, 96 // output_stride)


def test_scores_have_one_channel_a_class() -> None:
    with torch.device("meta"):
        model = DeepLabV3(Architecture("resnet50", 16, (6, 12, 18), 8), 21).eval()
        assert model(torch.zeros(2, 3, 65, 97)).shape == (2, 21, 5, 7)


# (stride, rate) of the convolution that has the stride and of the later ones, in layer1 to layer4
RESNET_STAGES = {
    8: [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (1, 2)), ((1, 2), (1, 4))],
    16: [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (1, 2))],
    32: [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((2, 1), (1, 1)), ((2, 1), (1, 1))],
}


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("backbone", BACKBONES[:4])
def test_a_resnets_strides_become_rates_behind_the_convolution_that_had_them(backbone: str, output_stride: int) -> None:
    with torch.device("meta"):
        network = build_backbone(Architecture(backbone, output_stride))
    for stage, (first, later) in zip((f"layer{i}" for i in range(1, 5)), RESNET_STAGES[output_stride], strict=True):
        three = [m for m in getattr(network, stage).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert [(m.stride[0], m.dilation[0]) for m in three] == [first, *[later] * (len(three) - 1)], stage
        assert all(m.padding == m.dilation for m in three)
        shortcut = getattr(network, stage)[0].downsample
        assert shortcut is None or shortcut[0].stride == (first[0], first[0])


# (stride, rate) of the depthwise convolution of features.1 to features.17, where they are not (1, 1)
MOBILENET_BLOCKS = {
    8: {2: (2, 1), 4: (2, 1)} | dict.fromkeys(range(8, 15), (1, 2)) | dict.fromkeys(range(15, 18), (1, 4)),
    16: {2: (2, 1), 4: (2, 1), 7: (2, 1), 15: (1, 2), 16: (1, 2), 17: (1, 2)},
    32: {2: (2, 1), 4: (2, 1), 7: (2, 1), 14: (2, 1)},
}


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_mobilenet_v2s_strides_become_rates_from_the_second_block_on(output_stride: int) -> None:
    with torch.device("meta"):
        network = build_backbone(Architecture("mobilenet_v2", output_stride))
    found = {}
    for number in range(1, 18):
        (depthwise,) = [
            m for m in network.get_submodule(f"features.{number}").modules() if isinstance(m, nn.Conv2d) and m.groups > 1
        ]
        assert depthwise.padding == depthwise.dilation
        if (depthwise.stride[0], depthwise.dilation[0]) != (1, 1):
            found[number] = (depthwise.stride[0], depthwise.dilation[0])
    assert found == MOBILENET_BLOCKS[output_stride]


@pytest.mark.parametrize(
    ("backbone", "output_stride"),
    [("resnet18", 8), ("resnet18", 16), ("resnet50", 8), ("mobilenet_v2", 8), ("mobilenet_v2", 16)],
)
def test_dense_features_hold_the_strided_ones(backbone: str, output_stride: int) -> None:
    """Paper, section 3.1: atrous convolution computes what striding computes, at more positions."""
    strided = lively_model(Architecture(backbone, 32, (1,), 8)).backbone
    dense = build_backbone(Architecture(backbone, output_stride)).eval()
    dense.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        for few, many, native_stride in zip(strided(image), dense(image), (4, 16, 32), strict=True):
            every = max(1, native_stride // output_stride)
            torch.testing.assert_close(many[:, :, ::every, ::every], few, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_papers_rates_reach_equally_far_at_every_output_stride(output_stride: int) -> None:
    assert [rate * output_stride for rate in aspp_rates_at(output_stride)] == [96, 192, 288]


def test_every_aspp_branch_has_its_own_rate() -> None:
    with torch.device("meta"):
        model = DeepLabV3(Architecture("resnet18", 16, (2, 5, 7, 11), 8), 3)
    branches: list[Any] = list(model.get_submodule("classifier.0.convs").children())
    assert [b[0].dilation for b in branches[1:-1]] == [(r, r) for r in (2, 5, 7, 11)]
    assert [b[0].padding for b in branches[1:-1]] == [(r, r) for r in (2, 5, 7, 11)]
    assert branches[0][0].kernel_size == branches[-1][1].kernel_size == (1, 1)


def test_an_unknown_backbone_and_output_stride_are_refused() -> None:
    with pytest.raises(UserError, match="resnet18, resnet34, resnet50, resnet101, mobilenet_v2, mobilenet_v3_large"):
        build_backbone(Architecture("vgg16"))
    for stride in (0, 4, 12, 64):
        with pytest.raises(UserError, match="8, 16, 32"):
            build_backbone(Architecture("resnet18", stride))
