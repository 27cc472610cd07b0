"""The paper's cascades: blocks 5 to 7, multi-grid, every output stride of Table 1, and the same weights at another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_runs import lively_model
from torch import nn

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.network.choices import check_architecture, native_stride
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, build_backbone
from dlv3deploy.train.network.resnet import replicated

GRIDS = [(1, 1, 1), (1, 2, 1), (1, 2, 3), (1, 2, 4), (2, 2, 2)]  # Table 3
CASCADE = Architecture("resnet50", 16, head="cascade", blocks=7, multi_grid=(1, 1, 1))


def rates_of(network: nn.Module, block: int) -> list[int]:
    """The atrous rates of the 3×3 convolutions of one block."""
    three = [m for m in getattr(network, f"layer{block}").modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert all(m.padding == m.dilation for m in three)
    return [int(m.dilation[0]) for m in three]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_rates_are_the_unit_rates_times_the_blocks_rate(backbone: str, grid: tuple[int, int, int]) -> None:
    """Figure 3b: at output stride 16 blocks 4 to 7 have the rates 2, 4, 8 and 16."""
    with torch.device("meta"):
        network = build_backbone(replace(CASCADE, backbone=backbone, multi_grid=grid))
    for block, rate in zip((4, 5, 6, 7), (2, 4, 8, 16), strict=True):
        assert rates_of(network, block) == [unit * rate for unit in grid]
    assert set(rates_of(network, 3)) == {1}


def test_block_4_with_units_1_2_4_has_the_papers_rates_2_4_8() -> None:
    """Section 3.2.1."""
    with torch.device("meta"):
        network = build_backbone(Architecture("resnet101", 16, multi_grid=(1, 2, 4)))
    assert rates_of(network, 4) == [2, 4, 8]


def test_at_output_stride_8_every_blocks_rate_doubles() -> None:
    with torch.device("meta"):
        network = build_backbone(replace(CASCADE, output_stride=8, multi_grid=(1, 2, 1)))
    assert rates_of(network, 3) == [1, 2, 2, 2, 2, 2]  # the first takes the place of the stride
    assert [rates_of(network, block) for block in (4, 5, 6, 7)] == [[4, 8, 4], [8, 16, 8], [16, 32, 16], [32, 64, 32]]


def test_without_atrous_convolution_every_block_halves_the_map() -> None:
    """Figure 3a: output stride 256 behind block 7."""
    with torch.device("meta"):
        network = build_backbone(replace(CASCADE, output_stride=256))
        for blocks in (4, 5, 6, 7):
            assert native_stride(replace(CASCADE, blocks=blocks)) == 32 << (blocks - 4)
    assert all(set(rates_of(network, block)) == {1} for block in range(1, 8))


@pytest.mark.parametrize("output_stride", [8, 16, 32, 64, 128, 256])  # Table 1
def test_scores_have_the_output_stride_that_was_asked_for(output_stride: int) -> None:
    with torch.device("meta"):
        model = DeepLabV3(replace(CASCADE, output_stride=output_stride), 21).eval()
        for height, width in ((513, 513), (256, 512)):
            scores = model(torch.zeros(1, 3, height, width))
            assert scores.shape == (1, 21, -(-height // output_stride), -(-width // output_stride))


def test_the_network_is_the_same_weights_at_every_output_stride() -> None:
    with torch.device("meta"):
        names = {
            output_stride: {
                n: t.shape for n, t in DeepLabV3(replace(CASCADE, output_stride=output_stride), 21).state_dict().items()
            }
            for output_stride in (8, 16, 64, 256)
        }
    assert names[8] == names[16] == names[64] == names[256]
    assert names[8]["backbone.layer7.2.conv3.weight"] == (2048, 512, 1, 1)
    assert names[8]["classifier.0.weight"] == (21, 2048, 1, 1)


@pytest.mark.parametrize(
    "architecture",
    [
        replace(CASCADE, multi_grid=(1, 2, 1)),
        Architecture("resnet50", 16, (6, 12, 18), 8, multi_grid=(1, 2, 4), final_convolution=False),
        Architecture("mobilenet_v2", 16, (6, 12, 18), 8),
    ],
    ids=lambda a: f"{a.backbone} {a.head}",
)
def test_what_was_trained_at_16_computes_the_same_at_8_and_more_of_it(architecture: Architecture) -> None:
    """Tables 4 and 6: the backbone's dense map holds the strided one, so the same weights serve.

    Not so MobileNetV3's, whose gates take the mean over the map, and a dense one has other positions.
    """
    trained = lively_model(architecture).double()
    finer = DeepLabV3(architecture.at_output_stride(8), trained.classes).double().eval()
    finer.load_state_dict(trained.state_dict())
    image = torch.randn(1, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        coarse, dense = trained.backbone(image).high, finer.backbone(image).high
        scores = finer(image)
    torch.testing.assert_close(dense[:, :, ::2, ::2], coarse, rtol=1e-9, atol=1e-9)
    assert scores.shape[2:] == (9, 13)
    assert coarse.std() > 0.01


def test_aspps_rates_double_with_the_map() -> None:
    at_8 = Architecture("resnet50", 16, (6, 12, 18, 24)).at_output_stride(8)
    assert (at_8.output_stride, at_8.aspp_rates) == (8, (12, 24, 36, 48))
    assert at_8.at_output_stride(16).aspp_rates == (6, 12, 18, 24)


def test_replicas_of_block_4_are_copies_of_its_units() -> None:
    """Section 3.2: several copies of the last block. Its first unit widens the map and fits nowhere behind itself."""
    with torch.device("meta"):
        wanted = build_backbone(replace(CASCADE, blocks=6)).state_dict()
        published = {n: t for n, t in wanted.items() if not n.startswith(("layer5", "layer6"))}
    weights = {n: torch.randn(t.shape) if t.is_floating_point() else torch.tensor(5) for n, t in published.items()}
    filled = replicated(weights, wanted)
    assert set(filled) == set(wanted)
    for block in (5, 6):
        for unit, source in ((0, 1), (1, 1), (2, 2)):
            for part in ("conv1.weight", "conv2.weight", "bn3.running_var", "bn1.bias"):
                assert torch.equal(filled[f"layer{block}.{unit}.{part}"], weights[f"layer4.{source}.{part}"])


def test_a_narrow_resnet_has_the_same_blocks_and_rates() -> None:
    with torch.device("meta"):
        wide, narrow = (build_backbone(replace(CASCADE, multi_grid=(1, 2, 4), width=width)) for width in (1.0, 0.125))
    assert set(wide.state_dict()) == set(narrow.state_dict())
    assert [rates_of(wide, b) for b in range(1, 8)] == [rates_of(narrow, b) for b in range(1, 8)]
    for name, tensor in narrow.state_dict().items():
        if tensor.ndim == 4 and not name.startswith("conv1"):
            assert [8 * n for n in tensor.shape[:2]] == list(wide.state_dict()[name].shape[:2])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"blocks": 8}, "block 4 to 7"),
        ({"blocks": 3}, "block 4 to 7"),
        ({"blocks": 5, "multi_grid": None}, "use --multi-grid 1,1,1"),
        ({"backbone": "resnet18", "blocks": 5}, "resnet50 or resnet101"),
        ({"backbone": "mobilenet_v2", "blocks": 4}, "resnet50 or resnet101"),
        ({"multi_grid": (1, 2)}, "three whole numbers"),
        ({"multi_grid": (1, 0, 1)}, "three whole numbers"),
        ({"output_stride": 512}, "8, 16, 32, 64, 128, 256"),
        ({"blocks": 4, "output_stride": 64}, "8, 16, 32; "),
        ({"head": "lraspp"}, "MobileNetV3's head"),
        ({"decoder": True}, "behind ASPP"),
        ({"width": 0.0}, "more than 0"),
        ({"backbone": "mobilenet_v3_large", "head": "aspp", "blocks": 4, "multi_grid": None, "width": 0.5}, "MobileNetV2 and"),
        ({"early_padding": True}, "MobileNetV2's blocks"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_with_its_reason(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_architecture(replace(CASCADE, **changes))
