"""Checkpoints: trained weights in safetensors, with the ModelSpec in the header.

What a killed run needs to go on (optimiser, step) is a different file, `train/state.pt`, which only `train --resume` reads.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dlv3deploy.core.checkpoints import MADE_BY, checkpoint_facts
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing, sha256_of
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import SPEC_KEY, ModelSpec
from dlv3deploy.train.network.atrous import check_output_stride
from dlv3deploy.train.network.choices import native_stride
from dlv3deploy.train.network.deeplabv3 import DeepLabV3
from dlv3deploy.train.network.resnet import replicated
from dlv3deploy.train.weights.names import backbone_names, misfits
from dlv3deploy.train.weights.state_dict import first_line, read_safetensors, read_state_dict


def save_checkpoint(path: Path, model: DeepLabV3, spec: ModelSpec) -> None:
    """Write the weights and the spec; the old file stays until the new one is whole."""
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as partial:
        save_file(weights, str(partial), metadata={SPEC_KEY: spec.to_text()})


def publish(best: Path, checkpoint: Path) -> None:
    """Put the best checkpoint in its place; another one that was there stays beside it as `….previous.safetensors`."""
    if checkpoint.is_file():
        if sha256_of(checkpoint) == sha256_of(best):
            return
        _copy(checkpoint, checkpoint.with_suffix(".previous.safetensors"))
    _copy(best, checkpoint)


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as partial:
        shutil.copyfile(source, partial)


def load_checkpoint(path: Path, output_stride: int | None = None) -> tuple[DeepLabV3, ModelSpec]:
    """The model in evaluation mode, and its spec; at another output stride where one is given, ASPP's rates with it.

    Raises UserError for anything but a whole checkpoint of this program.
    """
    spec = checkpoint_facts(path).spec
    weights = read_safetensors(path, MADE_BY)
    architecture = spec.architecture
    if architecture is None:
        raise UserError(str(path), "does not say which architecture its weights are for", MADE_BY)
    output = spec.output
    if output_stride is not None:
        check_output_stride(output_stride, native_stride(architecture))
        if not architecture.decoder and architecture.head != "lraspp":  # whose scores lie on a map of a stride of its own
            output = output.at_output_stride(architecture.output_stride, output_stride)
        architecture = architecture.at_output_stride(output_stride)
    model = DeepLabV3(architecture, len(spec.classes))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(str(path), f"does not fit its own description ({first_line(error)})", MADE_BY) from error
    return model.eval(), replace(spec, architecture=architecture, output=output)


def load_start(path: Path, model: DeepLabV3) -> None:
    """Begin with all weights of a checkpoint, whatever output stride it was trained at (paper, section 4.1: 16, then 8).

    Where the checkpoint has other classes, or no auxiliary head, the layers that depend on them stay as they are, which is
    said. Raises UserError when any other weight is missing or has another shape.
    """
    theirs = len(checkpoint_facts(path).spec.classes)
    weights, wanted = read_safetensors(path, MADE_BY), model.state_dict()
    fresh = {n for n in wanted if n.startswith("aux_classifier.") and n not in weights}
    fresh |= {n for n, t in wanted.items() if n in weights and _counts_classes(n, weights[n], t, theirs, model.classes)}
    problems = [
        f"lacks {n}" if n not in weights else f"has {n} of shape {list(weights[n].shape)}, not {list(t.shape)}"
        for n, t in wanted.items()
        if n not in fresh and (n not in weights or weights[n].shape != t.shape)
    ]
    if problems:
        raise UserError(
            str(path), f"does not fit this network: it {problems[0]}", "give the --backbone and head options that made it"
        )
    if fresh:
        say(f"{path}: {', '.join(sorted({n.rpartition('.')[0] for n in fresh}))} begin anew")
    model.load_state_dict({n: t if n in fresh else weights[n] for n, t in wanted.items()})


def load_backbone_weights(path: Path, model: DeepLabV3) -> None:
    """Fill the backbone from a state dict with torchvision's names (.safetensors, .pth), classifier layers left aside.

    Names may stand bare (`conv1.weight`, `features.0.0.weight`) or behind `backbone.`, as in a whole segmentation model, be it
    torchvision's or VainF's. Raises UserError when a weight that the backbone needs is missing or has another shape, or when
    there are more, as in a deeper network, whose first blocks alone would fit.
    """
    wanted = model.backbone.state_dict()
    weights = replicated(backbone_names(read_state_dict(path)), wanted)
    if problems := misfits(weights, wanted):
        name = model.architecture.backbone
        raise UserError(
            str(path),
            f"does not fit a {name} backbone: it {problems[0]}",
            f"supply weights of {name} under torchvision's names, or choose another --backbone",
        )
    model.backbone.load_state_dict({**wanted, **weights})


def _counts_classes(name: str, theirs: Tensor, own: Tensor, their_classes: int, own_classes: int) -> bool:
    """Whether a head's weight differs between two networks because their numbers of classes do."""
    in_head = name.startswith(("classifier.", "aux_classifier."))
    return in_head and (theirs.shape[:1], own.shape[:1]) == ((their_classes,), (own_classes,)) and theirs.shape != own.shape
