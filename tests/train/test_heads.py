"""Heads: ASPP in the forms of Tables 5 and 6, DeepLabv2's, DeepLabv3+'s decoder, LR-ASPP."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network.aspp import ASPP, SummedASPP
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, build_backbone

PAPER = Architecture("resnet50", 16, final_convolution=False, multi_grid=(1, 2, 4))


def shapes_of(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = DeepLabV3(architecture, 21).state_dict()
    return {name.removeprefix("classifier."): tuple(t.shape) for name, t in state.items() if name.startswith("classifier.")}


def branches(architecture: Architecture) -> set[str]:
    return {name.split(".")[2] for name in shapes_of(architecture) if name.startswith("0.convs.")}


def test_image_pooling_and_a_fourth_rate_are_branches_that_can_be_left_out_and_added() -> None:
    """Table 5's columns."""
    assert branches(PAPER) == set("01234")
    assert branches(replace(PAPER, image_pooling=False)) == set("0123")
    assert branches(replace(PAPER, aspp_rates=(6, 12, 18, 24))) == set("012345")
    assert branches(replace(PAPER, aspp_rates=())) == set("01")  # what Google's MobileNetV2 models have
    assert shapes_of(replace(PAPER, image_pooling=False))["0.project.0.weight"] == (256, 4 * 256, 1, 1)


def test_the_papers_head_goes_from_aspp_right_to_the_classes() -> None:
    """Section 3.3; torchvision's has a 3×3 convolution in between."""
    assert {n for n in shapes_of(PAPER) if not n.startswith("0.")} == {"4.weight", "4.bias"}
    assert "1.weight" in shapes_of(replace(PAPER, final_convolution=True))


def test_without_batch_norm_convolutions_have_biases() -> None:
    names = shapes_of(replace(PAPER, aspp_batch_norm=False))
    assert not [name for name in names if "running" in name]
    assert {n for n in names if n.endswith("bias")} == {
        *(f"0.convs.{i}.0.bias" for i in range(4)), "0.convs.4.1.bias", "0.project.0.bias", "4.bias",
    }  # fmt: skip


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("image_pooling", [True, False])
def test_aspp_computes_what_its_branches_say(batch_norm: bool, image_pooling: bool) -> None:
    torch.manual_seed(0)
    aspp = ASPP(6, (1, 3), 4, 0.5, batch_norm, image_pooling).eval()
    for norm in aspp.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]  # None only without statistics
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]  # None only without statistics
            nn.init.uniform_(norm.weight)
            nn.init.normal_(norm.bias)
    weights, x = aspp.state_dict(), torch.randn(2, 6, 7, 9)

    def block(x: Tensor, at: str, place: int, rate: int) -> Tensor:
        weight, norm = weights[f"{at}.{place}.weight"], f"{at}.{place + 1}"
        y = F.conv2d(x, weight, weights.get(f"{at}.{place}.bias"), padding=rate * (weight.shape[2] // 2), dilation=rate)
        if batch_norm:
            mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
            y = F.batch_norm(y, mean, var, weights[f"{norm}.weight"], weights[f"{norm}.bias"])
        return F.relu(y)

    parts = [block(x, "convs.0", 0, 1), block(x, "convs.1", 0, 1), block(x, "convs.2", 0, 3)]
    if image_pooling:
        parts.append(block(x.mean((2, 3), keepdim=True), "convs.3", 1, 1).expand(-1, -1, 7, 9))
    expected = block(torch.cat(parts, 1), "project", 0, 1)
    with torch.no_grad():
        torch.testing.assert_close(aspp(x), expected)


def test_deeplabv2s_branches_are_summed() -> None:
    torch.manual_seed(0)
    head, x = SummedASPP(5, 3, (6, 12, 18, 24)), torch.randn(1, 5, 33, 33)
    expected = sum(
        F.conv2d(x, head.get_parameter(f"convs.{i}.weight"), head.get_parameter(f"convs.{i}.bias"), padding=r, dilation=r)
        for i, r in enumerate((6, 12, 18, 24))
    )
    torch.testing.assert_close(head(x), expected)
    assert not [m for m in head.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large"])
def test_the_decoder_gives_scores_at_stride_4(backbone: str) -> None:
    with torch.device("meta"):
        model = DeepLabV3(Architecture(backbone, 16, aspp_channels=16, decoder=True), 5).eval()
        assert model(torch.zeros(1, 3, 64, 97)).shape == (1, 5, 16, 25)
    names = model.state_dict()
    assert names["classifier.project.0.weight"].shape[0] == 48
    assert names["classifier.classifier.0.weight"].shape == (16, 16 + 48, 3, 3)


def test_lraspp_gives_scores_at_stride_8() -> None:
    with torch.device("meta"):
        model = DeepLabV3(Architecture("mobilenet_v3_large", 16, head="lraspp"), 5).eval()
        assert model(torch.zeros(1, 3, 64, 97)).shape == (1, 5, 8, 13)


@pytest.mark.parametrize(
    ("width", "channels"), [(0.35, (16, 8, 112)), (0.5, (16, 16, 160)), (1.4, (48, 32, 448)), (1.0, (32, 24, 320))]
)
def test_a_width_multiplies_mobilenet_v2s_channels_to_multiples_of_eight(width: float, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        backbone = build_backbone(Architecture("mobilenet_v2", 16, width=width))
        low, _, high = backbone(torch.zeros(1, 3, 64, 64))
    assert (backbone.state_dict()["features.0.0.weight"].shape[0], low.shape[1], high.shape[1]) == channels


def test_early_padding_differs_from_the_usual_one_at_the_border_alone() -> None:
    torch.manual_seed(0)
    usual = build_backbone(Architecture("mobilenet_v2", 16)).eval()
    early = build_backbone(Architecture("mobilenet_v2", 16, early_padding=True)).eval()
    early.load_state_dict(usual.state_dict())
    blocks: list[nn.Module] = [n.get_submodule("features.3") for n in (usual, early)]
    for block in blocks:
        for norm in block.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.ones_(norm.bias)  # so that zeros leave the expansion as ones
    x = torch.randn(1, 24, 9, 9)
    with torch.no_grad():
        difference = (blocks[0](x) - blocks[1](x)).abs().amax((0, 1))
    assert (difference[1:-1, 1:-1] < 1e-6).all()
    assert (difference[0] > 1e-3).all() and (difference[:, -1] > 1e-3).all()
