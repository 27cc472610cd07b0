"""Which model a command works on, and opening it with the backend it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.core.checkpoints import checkpoint_facts
from dlv3deploy.core.errors import Dlv3Error, StaleArtefact, UserError
from dlv3deploy.core.files import require_file, sha256_of
from dlv3deploy.core.foreign import Description, spec_of
from dlv3deploy.core.graph import embedded_spec, load_onnx
from dlv3deploy.core.progress import say
from dlv3deploy.core.workspace import ENGINE_SUFFIX, Workspace, by_building

if TYPE_CHECKING:
    from dlv3deploy.core.engine import Engine
    from dlv3deploy.core.spec import ModelSpec

KINDS = ".safetensors (checkpoint), .onnx or .engine"


def open_model(path: Path, description: Description, output_stride: int | None = None) -> Engine:
    """The engine for a checkpoint, an ONNX file or an engine file; a checkpoint at another `output_stride` if one is given.

    Raises UserError when it cannot be read, StaleArtefact when it belongs to another model or machine.
    """
    if output_stride is not None and path.suffix != ".safetensors":
        place = Workspace(path.parent)
        checkpoint = str(place.checkpoint) if place.checkpoint.is_file() else "a checkpoint"
        raise UserError(
            f"--output-stride with {path}",
            "a graph keeps the output stride that it was exported with",
            f"give {checkpoint}, or export it so: {place.command('export', '--output-stride', output_stride)}",
        )
    if path.suffix != ".onnx" and not description.is_empty:
        raise UserError(str(path), "describes itself", "leave out --classes, --ignore-index, --mean, --std and --output")
    if path.suffix == ENGINE_SUFFIX:
        from dlv3deploy.engines.open import open_engine

        return open_engine(path)
    if path.suffix == ".safetensors":
        require_file(path, f"a model is a {KINDS} file")
        return _open_checkpoint(path, output_stride)
    if path.suffix == ".onnx":
        from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine.open(path, spec_of(load_onnx(path), description, str(path)))
    require_file(path, f"a model is a {KINDS} file")
    raise UserError(str(path), "is no model", f"give a {KINDS} file; what is to be labelled goes behind --source")


def _open_checkpoint(path: Path, output_stride: int | None) -> Engine:
    try:
        from dlv3deploy.train.torch_engine import TorchEngine
    except ImportError as error:
        raise UserError(
            str(path),
            f"is a checkpoint, and PyTorch is not installed ({error.name})",
            "install dlv3deploy[train], or use the ONNX file",
        ) from error
    return TorchEngine.open(path, output_stride)


@dataclass(frozen=True)
class _Candidate:
    path: Path
    latency_ms: float
    images: int

    def takes_ms(self, together: int) -> float:
        """For so many images."""
        return math.ceil(together / self.images) * self.latency_ms


def best_artefact(workspace: Workspace, output_stride: int | None = None, together: int = 1) -> Path:
    """The engine that is valid here and fastest for so many images at once, else the ONNX file, else the checkpoint; what is
    passed over is said.

    With an `output_stride` the checkpoint, where there is one: nothing else can be opened at another than its own.
    """
    if output_stride is not None and workspace.checkpoint.exists():
        return _chosen(workspace.checkpoint)
    valid = [c for path in workspace.engines() if (c := _candidate(path, workspace)) is not None]
    if valid:
        return _chosen(min(valid, key=lambda candidate: candidate.takes_ms(together)).path)
    if workspace.onnx.exists():
        check_export_is_current(workspace)
        return _chosen(workspace.onnx)
    if workspace.checkpoint.exists():
        return _chosen(workspace.checkpoint)
    others = workspace.engines_of_others()
    if others:
        raise UserError(str(workspace.root), "holds no model of its own, only engines of other files", f"name one: {others[0]}")
    raise UserError(
        str(workspace.root),
        "holds no model",
        f"make one with `{workspace.command('train', 'DATA')}`, or name a file: checkpoint, ONNX or engine",
    )


def _chosen(path: Path) -> Path:
    say(f"using {path}")
    return path


def _candidate(path: Path, workspace: Workspace) -> _Candidate | None:
    from dlv3deploy.engines.manifest import OWN_ONNX
    from dlv3deploy.engines.open import backend_for, checked_manifest

    try:
        manifest = checked_manifest(path)
        if manifest.onnx != OWN_ONNX:
            say(f"passed over: {path} is of another model, {manifest.onnx}; name it to use it")
            return None
        _check_checkpoint(path, manifest.spec, workspace, manifest.rebuild(path))
    except Dlv3Error as error:
        say(f"passed over: {error}")
        return None
    if not backend_for(manifest).runs_here():
        say(f"passed over: {path} needs a GPU that {manifest.builder.name} runs on")
        return None
    return _Candidate(path, manifest.timing.p50_ms if manifest.timing else float("inf"), manifest.images)


def check_export_is_current(workspace: Workspace) -> None:
    """Raise StaleArtefact when the workspace's ONNX file was exported from another checkpoint than the one beside it."""
    if not workspace.checkpoint.exists():
        return
    spec = embedded_spec(load_onnx(workspace.onnx), str(workspace.onnx))
    if spec is not None:
        _check_checkpoint(workspace.onnx, spec, workspace, f"export again: {workspace.command('export')}")


def _check_checkpoint(artefact: Path, spec: ModelSpec, workspace: Workspace, remedy: str) -> None:
    parent = spec.parents.get("checkpoint")
    if parent is None or not workspace.checkpoint.exists():
        return
    here = sha256_of(workspace.checkpoint)
    if parent != here:
        raise StaleArtefact(str(artefact), f"sha256 of {workspace.checkpoint.name}", parent[:12], here[:12], remedy)


def model_spec(path: Path, description: Description) -> ModelSpec:
    """The spec of a checkpoint, an ONNX file or an engine, without loading a backend."""
    if path.suffix == ".safetensors":
        return checkpoint_facts(path).spec
    if path.suffix == ENGINE_SUFFIX:
        from dlv3deploy.engines.manifest import Manifest

        return Manifest.read(require_file(path, by_building(path))).spec
    return spec_of(load_onnx(path), description, str(path))


def sized(spec: ModelSpec, size: str | None) -> ModelSpec:
    """`spec` at the size that `--size` names. Raises UserError when the graph's is fixed at another."""
    from dlv3deploy.commands.options import parse_size
    from dlv3deploy.core.spec import check_size

    if size is None:
        return spec
    height, width = parse_size(size)
    if (height, width) != (spec.input.height, spec.input.width) and not spec.input.dynamic_size:
        raise UserError(
            f"--size {size}",
            f"the ONNX file is fixed at {spec.input.height}×{spec.input.width}",
            "export with that --size, or with --dynamic-size",
        )
    if spec.architecture:
        check_size(height, width, spec.architecture.output_stride)
    return spec.at_size(height, width)
