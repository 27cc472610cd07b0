"""Checkpoints: trained weights in safetensors, with the ModelSpec in the header.

What a killed run needs to go on (optimiser, step) is a different file, `train/state.pt`, which only `train --resume` reads.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from torch import nn

from dlv3deploy.core.checkpoints import checkpoint_facts
from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing, sha256_of
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import SPEC_KEY, ModelSpec
from dlv3deploy.core.workspace import by_training
from dlv3deploy.train.beginning import start_architecture
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
    weights = read_safetensors(path, by_training(path))
    architecture = spec.architecture
    if architecture is None:
        raise UserError(str(path), "does not say which architecture its weights are for", by_training(path))
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
        raise UserError(str(path), f"does not fit its own description ({first_line(error)})", by_training(path)) from error
    return model.eval(), replace(spec, architecture=architecture, output=output)


def load_start(path: Path, model: DeepLabV3, classes: Classes) -> None:
    """Begin with all weights of a checkpoint, whatever output stride it was trained at (paper, section 4.1: 16, then 8).

    Where the checkpoint has other classes than `classes`, or no auxiliary head, the layers that depend on them stay as they
    are, which is said. Raises UserError when it is of another network.
    """
    architecture, theirs = start_architecture(path, model.architecture.output_stride, model.architecture.auxiliary)
    own = replace(model.architecture, auxiliary=architecture.auxiliary)
    if architecture != own:
        raise UserError(
            str(path), f"is {architecture}, not {own}", "leave the network's options out, and those of the checkpoint are taken"
        )
    weights, wanted = read_state_dict(path), model.state_dict()
    fresh = {n for n in wanted if n.startswith("aux_classifier.") and n not in weights}
    if theirs.classes.names != classes.names:
        fresh |= _class_layers(model)
    for name, tensor in wanted.items():
        if name not in fresh and (name not in weights or weights[name].shape != tensor.shape):
            raise UserError(str(path), f"does not fit its own description (at {name})", by_training(path))
    if fresh:
        say(f"{path}: {', '.join(sorted({n.rpartition('.')[0] for n in fresh}))} begin anew")
    model.load_state_dict({n: t if n in fresh else weights[n] for n, t in wanted.items()})


def _class_layers(model: DeepLabV3) -> set[str]:
    """The weights that belong to single classes: those of the last convolutions of the heads, which alone have a bias."""
    heads = [(n, m) for n, m in model.named_modules() if n.startswith(("classifier", "aux_classifier"))]
    last = [n for n, m in heads if isinstance(m, nn.Conv2d) and m.bias is not None and m.out_channels == model.classes]
    return {f"{name}.{part}" for name in last for part in ("weight", "bias")}


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
