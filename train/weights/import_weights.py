"""From another program's weights to a checkpoint, or to a backbone's weights: recognised, renamed, loaded strictly, tried."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dlv3deploy.core.classes import CITYSCAPES, VOC, Classes, anonymous_classes
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.foreign import DEFAULT_SIZE
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SPEC_KEY,
    Architecture,
    InputSpec,
    ModelSpec,
    OutputSpec,
    Triple,
    check_size,
)
from dlv3deploy.core.workspace import Workspace
from dlv3deploy.train.checkpoint import publish, save_checkpoint
from dlv3deploy.train.network.atrous import check_output_stride
from dlv3deploy.train.network.choices import native_stride
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, build_backbone
from dlv3deploy.train.weights.layouts import Layout, backbone_layout, segmentation_layout
from dlv3deploy.train.weights.names import Weights, is_segmentation
from dlv3deploy.train.weights.published import published_as
from dlv3deploy.train.weights.state_dict import read_state_dict

TRIAL_SIDE = 97  # one more than a multiple of every output stride
USUAL_CLASSES = {len(VOC): VOC, len(CITYSCAPES): CITYSCAPES}  # what DeepLabv3 is published for


@dataclass(frozen=True)
class Choices:
    """What the user says of weights that do not describe themselves; None where the publisher's own is to be assumed."""

    classes: Classes | None = None
    output_stride: int | None = None
    aspp_rates: tuple[int, ...] | None = None
    size: tuple[int, int] | None = None
    mean: Triple | None = None
    std: Triple | None = None


@dataclass(frozen=True)
class Imported:
    """What was written where: a whole model with its spec, or the weights of `backbone`."""

    path: Path
    what: str
    parameters: int
    spec: ModelSpec | None = None
    backbone: str | None = None


def import_weights(source: Path, workspace: Workspace, to: Path | None = None, choices: Choices | None = None) -> Imported:
    """Bring the weights in `source` into the workspace, or to `to`; another file that was there is kept beside it.

    A segmentation model becomes a checkpoint, a classification model the weights of its backbone. Raises UserError for weights
    of no known network and for choices that do not fit them, CheckFailed for a model whose scores are not finite.
    """
    weights = read_state_dict(source)
    _refuse_own(source, workspace)
    chosen = choices or Choices()
    if is_segmentation(weights):
        return _import_model(source, weights, to or workspace.checkpoint, chosen)
    return _import_backbone(source, weights, workspace, to, chosen)


def _import_model(source: Path, weights: Weights, target: Path, choices: Choices) -> Imported:
    layout = segmentation_layout(weights, str(source))
    architecture = _architecture(layout, source, choices)
    spec = ModelSpec(
        classes=_classes(layout, source, choices),
        input=_input(architecture, choices),
        output=OutputSpec("scores"),
        architecture=architecture,
        parents={"weights": sha256_of(source)},
    )
    model = DeepLabV3(architecture, layout.classes)
    model.load_state_dict(layout.weights)
    _check_finite(model.eval(), source)
    _say_assumed(source, spec, choices)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / target.name
        save_checkpoint(fresh, model, spec)
        publish(fresh, target)
    return Imported(target, f"{layout.origin}'s {architecture}", _parameters(model), spec)


def _import_backbone(source: Path, weights: Weights, workspace: Workspace, to: Path | None, choices: Choices) -> Imported:
    from safetensors.torch import save_file

    layout = backbone_layout(weights, str(source))
    if choices != Choices():
        raise UserError(
            str(source),
            f"is a {layout.backbone} backbone, which has no classes, rates or input of its own",
            "leave out --classes, --output-stride, --aspp-rates, --size, --mean and --std, and give them to `train`",
        )
    backbone = build_backbone(Architecture(layout.backbone))
    backbone.load_state_dict(layout.weights)
    _check_finite(backbone.eval(), source)
    digest = sha256_of(source)
    published = published_as(digest)
    target = to or workspace.backbone(published.name if published else layout.backbone)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / target.name
        save_file({name: tensor.contiguous() for name, tensor in layout.weights.items()}, fresh, {"weights": digest})
        publish(fresh, target)
    return Imported(target, f"a {layout.backbone} backbone", _parameters(backbone), backbone=layout.backbone)


def _refuse_own(source: Path, workspace: Workspace) -> None:
    """Raise UserError for a checkpoint of this program, which would lose its description here."""
    from safetensors import safe_open

    if source.suffix != ".safetensors":
        return
    with safe_open(str(source), "np") as file:
        described = SPEC_KEY in (file.metadata() or {})
    if described:
        use = workspace.command("export", source)
        raise UserError(str(source), "is a checkpoint of this program already", f"use it as it is: {use}")


def _architecture(layout: Layout, source: Path, choices: Choices) -> Architecture:
    """The layout's, at the output stride and with the rates that the user, the file's name or its publisher has for it."""
    found = layout.architecture
    named = re.search(r"_os(8|16)(?!\d)", source.name) if layout.origin == "VainF" else None  # as its main.py calls them
    stride = choices.output_stride or (int(named[1]) if named else found.output_stride)
    if stride != found.output_stride:
        check_output_stride(stride, native_stride(found))
        found = found.at_output_stride(stride)
    rates = choices.aspp_rates
    if layout.branches == 0:
        if rates:
            raise UserError(f"--aspp-rates {_list(rates)}", "are for ASPP, and LR-ASPP has no atrous rates", "leave them out")
        return found
    if rates is None and not found.aspp_rates:
        raise UserError(
            str(source), f"has {layout.branches} atrous branches, and no file says their rates", "give them with --aspp-rates"
        )
    if rates and len(rates) != layout.branches:
        raise UserError(
            f"--aspp-rates {_list(rates)}",
            f"are {len(rates)}, {source} has {layout.branches} atrous branches",
            "give one for each",
        )
    return replace(found, aspp_rates=rates) if rates else found


def _classes(layout: Layout, source: Path, choices: Choices) -> Classes:
    if choices.classes is None:
        return USUAL_CLASSES.get(layout.classes) or anonymous_classes(layout.classes)
    if len(choices.classes) != layout.classes:
        raise UserError(
            f"{len(choices.classes)} class names",
            f"{source} tells {layout.classes} classes apart",
            "give others with --classes",
        )
    return choices.classes


def _input(architecture: Architecture, choices: Choices) -> InputSpec:
    std = choices.std or IMAGENET_STD
    if min(std) <= 0:
        raise UserError(f"std {std}", "pixels are divided by it", "give three numbers above 0")
    height, width = choices.size or (DEFAULT_SIZE, DEFAULT_SIZE)
    check_size(height, width, architecture.output_stride)
    return InputSpec(height, width, mean=choices.mean or IMAGENET_MEAN, std=std)


def _check_finite(network: torch.nn.Module, source: Path) -> None:
    """Run once. Raises CheckFailed for weights that are damaged in value, as by an overflow in half precision."""
    image = torch.randn(1, 3, TRIAL_SIDE, TRIAL_SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        result = network(image)
    maps = [result] if isinstance(result, Tensor) else list(result)
    if not all(bool(values.isfinite().all()) for values in maps):
        raise CheckFailed(f"{source}: what it computes is not finite; nothing was written, supply other weights")


def _say_assumed(source: Path, spec: ModelSpec, choices: Choices) -> None:
    architecture, taken = spec.architecture, []
    assert architecture is not None
    if choices.output_stride is None:
        taken.append(f"output stride {architecture.output_stride}")
    if choices.aspp_rates is None and architecture.head == "aspp":
        taken.append(f"ASPP rates {_list(architecture.aspp_rates)}")
    if choices.classes is None:
        known = next((name for name, classes in (("VOC", VOC), ("Cityscapes", CITYSCAPES)) if spec.classes == classes), None)
        taken.append(f"the {len(spec.classes)} classes of {known}" if known else f"{len(spec.classes)} classes without names")
    if silent := [name for name, value in (("mean", choices.mean), ("std", choices.std)) if value is None]:
        taken.append(f"ImageNet's {' and '.join(silent)}")
    if choices.size is None:
        taken.append(f"{spec.input.height}×{spec.input.width} pixels")
    taken = [*taken, "RGB", "stretched to the input's size"]
    say(f"{source} does not describe itself; assumed: {', '.join(taken)}")


def _list(rates: tuple[int, ...]) -> str:
    return ",".join(map(str, rates))


def _parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
