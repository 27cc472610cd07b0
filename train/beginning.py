"""Where a run begins: the network of a checkpoint, and whether its folder is free; without torch unless a state is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dlv3deploy.core.checkpoints import checkpoint_facts
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture, ModelSpec
from dlv3deploy.core.workspace import by_training
from dlv3deploy.train.network.atrous import check_output_stride
from dlv3deploy.train.network.choices import native_stride
from dlv3deploy.train.run_state import RunFolder


def start_architecture(path: Path, output_stride: int | None, auxiliary: bool) -> tuple[Architecture, ModelSpec]:
    """The network of a checkpoint that training goes on from, at its own or another output stride, and its spec."""
    spec = checkpoint_facts(path).spec
    if spec.architecture is None:
        raise UserError(str(path), "does not say which architecture its weights are for", by_training(path))
    stride = spec.architecture.output_stride if output_stride is None else output_stride
    check_output_stride(stride, native_stride(spec.architecture))
    architecture = spec.architecture.at_output_stride(stride)
    return replace(architecture, auxiliary=architecture.auxiliary or auxiliary), spec


def check_folder(folder: Path, resume: bool, restart: bool) -> None:
    """Raise UserError when there is no run to resume, or a new one would overwrite one that is not finished."""
    if resume and restart:
        raise UserError("--resume and --restart", "exclude each other", "give one of them")
    if resume:
        RunFolder(folder).require_run()
    elif not restart:
        RunFolder(folder).require_free()
