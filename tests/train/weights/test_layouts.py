"""Published layouts by name: each is recognised, takes this program's names, and computes what functional calls compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from by_name import ByName, Weights, random_weights
from published_names import (
    Shapes,
    below,
    classifier_names,
    head_names,
    mobilenet_names,
    parameters,
    torchvision_lraspp_names,
    torchvision_names,
    vainf_names,
)
from torch import Tensor

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture
from dlv3deploy.core.workspace import Workspace
from dlv3deploy.train.checkpoint import load_backbone_weights, load_checkpoint
from dlv3deploy.train.network.deeplabv3 import DeepLabV3
from dlv3deploy.train.weights.import_weights import Choices, import_weights
from dlv3deploy.train.weights.layouts import backbone_layout, segmentation_layout
from dlv3deploy.train.weights.published import PUBLISHED

PAPER, DOUBLED = (6, 12, 18), (12, 24, 36)
DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def empty(names: Shapes) -> Weights:
    return {name: torch.empty(shape, device="meta") for name, shape in names.items()}


SEGMENTATION: list[tuple[str, Shapes, int, Architecture]] = [
    ("torchvision", torchvision_names("resnet50"), 21, Architecture("resnet50", 8, DOUBLED, auxiliary=True)),
    ("torchvision", torchvision_names("resnet101"), 21, Architecture("resnet101", 8, DOUBLED, auxiliary=True)),
    ("torchvision", torchvision_names("resnet50", 64, 5, auxiliary=False), 5, Architecture("resnet50", 8, DOUBLED, 64)),
    (
        "torchvision",
        torchvision_names("mobilenet_v3_large"),
        21,
        Architecture("mobilenet_v3_large", 16, DOUBLED, auxiliary=True),
    ),
    ("torchvision", torchvision_lraspp_names(), 21, Architecture("mobilenet_v3_large", head="lraspp")),
    ("torchvision", torchvision_names("resnet18", auxiliary=False), 21, Architecture("resnet18")),
    ("VainF", vainf_names("resnet50", plus=False), 21, Architecture("resnet50")),
    ("VainF", vainf_names("resnet101", plus=False), 21, Architecture("resnet101")),
    ("VainF", vainf_names("mobilenet_v2", plus=False), 21, Architecture("mobilenet_v2", early_padding=True)),
    ("VainF", vainf_names("resnet50", plus=True), 21, Architecture("resnet50", decoder=True)),
    ("VainF", vainf_names("resnet101", plus=True, classes=19), 19, Architecture("resnet101", decoder=True)),
    ("VainF", vainf_names("mobilenet_v2", plus=True), 21, Architecture("mobilenet_v2", decoder=True, early_padding=True)),
]


@pytest.mark.parametrize(("origin", "names", "classes", "architecture"), SEGMENTATION)
def test_a_segmentation_model_is_recognised(origin: str, names: Shapes, classes: int, architecture: Architecture) -> None:
    layout = segmentation_layout(empty(names), "w.pth")
    assert (layout.origin, layout.architecture, layout.classes) == (origin, architecture, classes)
    with torch.device("meta"):
        DeepLabV3(architecture, classes).load_state_dict(layout.weights)


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.4])
def test_a_width_of_mobilenet_v2_is_recognised(width: float) -> None:
    architecture = Architecture("mobilenet_v2", width=width)
    with torch.device("meta"):
        weights = DeepLabV3(architecture, 4).state_dict()
    assert segmentation_layout(weights, "w.pth").architecture == architecture


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "mobilenet_v3_large"])
def test_a_classification_model_gives_its_backbone(backbone: str, tmp_path: Path) -> None:
    weights = random_weights(classifier_names(backbone), seed=3)
    assert backbone_layout(weights, "w.pth").backbone == backbone
    torch.save(weights, tmp_path / "w.pth")
    done = import_weights(tmp_path / "w.pth", Workspace(tmp_path / "artifacts"))
    assert done.path == tmp_path / "artifacts" / "backbones" / f"{backbone}.safetensors"
    assert done.backbone == backbone and done.spec is None
    filled = [DeepLabV3(Architecture(backbone), 2) for _ in range(2)]
    load_backbone_weights(tmp_path / "w.pth", filled[0])
    load_backbone_weights(done.path, filled[1])
    for name, tensor in filled[0].backbone.state_dict().items():
        assert torch.equal(tensor, filled[1].backbone.state_dict()[name])
        known = f"features.{name}" if backbone == "mobilenet_v3_large" else name
        assert torch.equal(tensor, weights[known])


def test_the_published_parameter_counts_are_those_of_the_layouts() -> None:
    for published in PUBLISHED.values():
        if published.kind == "backbone":
            names = classifier_names(published.backbone)
        elif published.name.startswith("lraspp"):
            names = torchvision_lraspp_names()
        else:
            names = torchvision_names(published.name.removeprefix("deeplabv3_"))
        assert parameters(names) == published.parameters


# --- what they compute -----------------------------------------------------------------------------------------------

Reference = Callable[[ByName, Tensor], Tensor]


def torchvision_resnet(backbone: str, output_stride: int, rates: tuple[int, ...]) -> Reference:
    return lambda net, x: net.head(net.bottleneck_resnet(x, DEPTHS[backbone], output_stride)[3], rates)


def vainf_resnet(backbone: str, plus: bool, output_stride: int, rates: tuple[int, ...]) -> Reference:
    def scores(net: ByName, x: Tensor) -> Tensor:
        maps = net.bottleneck_resnet(x, DEPTHS[backbone], output_stride)
        return net.decoder(maps[0], maps[3], rates) if plus else net.head(maps[3], rates, "classifier.classifier")

    return scores


def vainf_mobilenet(plus: bool, output_stride: int, rates: tuple[int, ...]) -> Reference:
    def scores(net: ByName, x: Tensor) -> Tensor:
        low, high = net.vainf_mobilenet(x, output_stride)
        return net.decoder(low, high, rates) if plus else net.head(high, rates, "classifier.classifier")

    return scores


def mobilenet_v3(net: ByName, x: Tensor) -> Tensor:
    return net.head(net.mobilenet_v3(x)[1], DOUBLED)


def lraspp(net: ByName, x: Tensor) -> Tensor:
    return net.lraspp(*net.mobilenet_v3(x))


FORWARD: list[tuple[str, Shapes, Choices, Reference]] = [
    ("torchvision r50", torchvision_names("resnet50", 16, 5), Choices(), torchvision_resnet("resnet50", 8, DOUBLED)),
    (
        "torchvision r50 at 16",
        torchvision_names("resnet50", 16, 5),
        Choices(None, 16),
        torchvision_resnet("resnet50", 16, PAPER),
    ),
    ("torchvision r101", torchvision_names("resnet101", 16, 5), Choices(), torchvision_resnet("resnet101", 8, DOUBLED)),
    ("torchvision v3", torchvision_names("mobilenet_v3_large", 16, 5), Choices(), mobilenet_v3),
    ("torchvision lraspp", torchvision_lraspp_names(5), Choices(), lraspp),
    ("VainF r50", vainf_names("resnet50", False, 16, 5), Choices(), vainf_resnet("resnet50", False, 16, PAPER)),
    ("VainF r50 plus", vainf_names("resnet50", True, 16, 5), Choices(), vainf_resnet("resnet50", True, 16, PAPER)),
    ("VainF r101 plus", vainf_names("resnet101", True, 16, 5), Choices(), vainf_resnet("resnet101", True, 16, PAPER)),
    ("VainF v2", vainf_names("mobilenet_v2", False, 16, 5), Choices(), vainf_mobilenet(False, 16, PAPER)),
    ("VainF v2 plus", vainf_names("mobilenet_v2", True, 16, 5), Choices(), vainf_mobilenet(True, 16, PAPER)),
    ("VainF v2 plus at 8", vainf_names("mobilenet_v2", True, 16, 5), Choices(None, 8), vainf_mobilenet(True, 8, DOUBLED)),
    (
        "VainF r50 with other rates",
        vainf_names("resnet50", False, 16, 5),
        Choices(aspp_rates=(1, 2, 3)),
        vainf_resnet("resnet50", False, 16, (1, 2, 3)),
    ),
]


def imported(names: Shapes, choices: Choices, folder: Path) -> tuple[DeepLabV3, Weights]:
    weights = random_weights(names, seed=1)
    torch.save(weights, folder / "w.pth")
    done = import_weights(folder / "w.pth", Workspace(folder / "artifacts"), choices=choices)
    return load_checkpoint(done.path)[0], weights


@pytest.mark.parametrize(("names", "choices", "reference"), [case[1:] for case in FORWARD], ids=[case[0] for case in FORWARD])
def test_an_imported_model_computes_what_functional_calls_compute(
    tmp_path: Path, names: Shapes, choices: Choices, reference: Reference
) -> None:
    model, weights = imported(names, choices, tmp_path)
    for height, width in ((64, 96), (65, 129)):
        image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            scores, expected = model(image), reference(ByName(weights), image)
        assert expected.std() > 0.05
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


def test_a_careless_import_of_vainfs_mobilenet_would_be_noticed(tmp_path: Path) -> None:
    """The same weights padded as torchvision does give other scores at the border, and only the reference tells."""
    model, weights = imported(vainf_names("mobilenet_v2", False, 16, 5), Choices(), tmp_path)
    careless = DeepLabV3(Architecture("mobilenet_v2", 16, PAPER, 16), 5).eval()
    careless.load_state_dict(model.state_dict())
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = vainf_mobilenet(False, 16, PAPER)(ByName(weights), image)
        assert careless(image).shape == expected.shape
        assert (careless(image) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v3_large"])
def test_the_auxiliary_head_comes_along(tmp_path: Path, backbone: str) -> None:
    model, weights = imported(torchvision_names(backbone, 8, 5), Choices(), tmp_path)
    image = torch.randn(1, 3, 64, 97, generator=torch.Generator().manual_seed(2))
    net = ByName(weights)
    with torch.inference_mode():
        middle = net.mobilenet_v3(image)[0] if backbone != "resnet50" else net.bottleneck_resnet(image, (3, 4, 6, 3), 8)[2]
        assert model.aux_classifier is not None
        scores = model.aux_classifier(model.backbone(image).middle)
    torch.testing.assert_close(scores, net.auxiliary(middle), atol=1e-5, rtol=1e-5)


# --- what is no known layout -----------------------------------------------------------------------------------------


def refusal(weights: Weights, segmentation: bool = True) -> str:
    with pytest.raises(UserError) as raised:
        segmentation_layout(weights, "w.pth") if segmentation else backbone_layout(weights, "w.pth")
    line = str(raised.value)
    assert line.startswith("w.pth: holds no network that can be imported: it ")
    assert "torchvision's deeplabv3_resnet50" in line and "VainF" in line and "\n" not in line
    return line


def without(names: Shapes, *absent: str) -> Weights:
    return empty({name: shape for name, shape in names.items() if name not in absent})


@pytest.mark.parametrize(
    "absent",
    [
        "backbone.layer3.4.bn2.running_var",
        "backbone.layer4.2.conv3.weight",
        "classifier.0.convs.2.1.bias",
        "classifier.0.project.0.weight",
        "classifier.4.weight",
        "classifier.4.bias",
        "aux_classifier.4.bias",
        "backbone.conv1.weight",
        "classifier.0.convs.0.0.weight",
    ],
)
def test_a_missing_tensor_is_named(absent: str) -> None:
    line = refusal(without(torchvision_names("resnet50"), absent))
    assert f"lacks {absent}" in line or (absent == "backbone.conv1.weight" and "lacks the first layers" in line)


def test_an_extra_tensor_is_named() -> None:
    assert "has classifier.9.weight as well" in refusal(empty({**torchvision_names("resnet50"), "classifier.9.weight": (1,)}))


def test_an_extra_tensor_of_a_strange_name_keeps_the_message_on_one_line() -> None:
    line = refusal(empty({**torchvision_names("resnet50"), "classifier.9\n\x1b[31m": (1,)}))
    assert "has 'classifier.9\\n\\x1b[31m' as well" in line


def test_a_misshapen_tensor_is_named() -> None:
    line = refusal(empty({**torchvision_names("resnet50"), "backbone.layer1.0.conv2.weight": (64, 64, 5, 5)}))
    assert "has backbone.layer1.0.conv2.weight of shape [64, 64, 5, 5], not [64, 64, 3, 3]" in line


def test_networks_that_are_not_known_are_refused() -> None:
    deep = {f"layer3.{block}.conv1.weight": (256, 1024, 1, 1) for block in range(23, 36)}
    assert "3, 4, 36, 3 blocks long" in refusal(empty({**classifier_names("resnet101"), **deep}), segmentation=False)
    hrnet = {"backbone.conv1.weight": (64, 3, 3, 3), "backbone.stage2.0.branches.0.0.conv1.weight": (48, 48, 3, 3)}
    assert "lacks the first layers" in refusal(empty(hrnet | below("classifier.classifier", head_names(720, 256, 19))))
    assert "lacks the first layers" in refusal(empty({"encoder.0.weight": (3, 3)}), segmentation=False)
    assert "lacks the first layers" in refusal({}, segmentation=False)
    assert "lacks classifier.0.convs.0.0.weight" in refusal(empty(below("backbone", mobilenet_names())))


def test_an_lraspp_head_on_another_backbone_is_refused() -> None:
    names = {n: s for n, s in torchvision_names("resnet50").items() if n.startswith("backbone.")}
    lraspp_head = {n: s for n, s in torchvision_lraspp_names().items() if n.startswith("classifier.")}
    assert "has an LR-ASPP head on a resnet50" in refusal(empty(names | lraspp_head))


def test_the_nearest_width_says_what_does_not_fit() -> None:
    with torch.device("meta"):
        weights = DeepLabV3(Architecture("mobilenet_v2", width=0.5), 4).state_dict()
    line = refusal({**weights, "extra.weight": torch.empty(1, device="meta")})
    assert "it has extra.weight as well, read as torchvision's DeepLabv3 with mobilenet_v2 of width 0.5" in line


def test_wide_and_grouped_resnets_are_refused_by_a_shape() -> None:
    wide = {**classifier_names("resnet50"), "layer1.0.conv1.weight": (128, 64, 1, 1)}
    assert "has layer1.0.conv1.weight of shape [128, 64, 1, 1]" in refusal(empty(wide), segmentation=False)


def test_vainfs_separable_convolutions_are_refused() -> None:
    names = {name.replace(".1.0.weight", ".1.0.body.0.weight"): s for name, s in vainf_names("resnet50", plus=True).items()}
    assert "classifier.aspp.convs.1.0.weight" in refusal(empty(names))


@pytest.mark.parametrize("shape", [(), (0,), (0, 256, 1, 1), (21,), (21, 256)])
def test_a_classifier_of_an_odd_shape_is_refused(shape: tuple[int, ...]) -> None:
    refusal(empty({**torchvision_names("mobilenet_v3_large"), "classifier.4.weight": shape}))
