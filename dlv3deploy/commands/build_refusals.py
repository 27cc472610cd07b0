"""What `dlv3deploy build-engine` refuses before it builds: files that are no source, places of others, options of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from onnx import ModelProto

OF_TENSORRT = (
    *("--target", "--workspace-mb", "--version-compatible", "--hardware-compatible"),
    *("--refittable", "--strip-plan", "--dla"),
)

NOT_OF = {"tensorrt": {"--target"}, "tensorrt-rtx": {"--version-compatible", "--hardware-compatible", "--dla"}}


def require_options_of(backend: str, given: Mapping[str, object]) -> None:
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.engines.dialect import DIALECTS
    from dlv3deploy.engines.onnxruntime_engine import NAME

    if backend != NAME and given["--provider"] is not None:
        raise UserError("--provider", "is for ONNX Runtime", "leave it out, or choose --backend onnxruntime")
    if backend == NAME and (idle := [name for name in OF_TENSORRT if given[name] is not None and given[name] is not False]):
        takers = [name for name in DIALECTS if not set(idle) & NOT_OF[name]]
        instead = f", or choose --backend {' or '.join(takers)}" if takers else ""
        raise UserError(", ".join(idle), "is for TensorRT", f"leave it out{instead}")


def with_head(applied: tuple[str, ...], asked: str | None, pipeline: str) -> tuple[str, ...]:
    """The rewrites that leave what the graph returns as it is, for whoever reads that."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.engines.rewrites.rewrite import HEAD

    if asked is not None and HEAD in applied:
        raise UserError(
            f"--rewrites {HEAD} with --export {pipeline}", "has the model return scores to be upsampled", f"leave {HEAD} out"
        )
    return tuple(name for name in applied if name != HEAD)


def require_onnx_name(source: Path, place: Workspace) -> None:
    from dlv3deploy.core.errors import UserError

    if source.suffix == ".safetensors":
        raise UserError(
            str(source), "is a checkpoint, engines are built from ONNX", f"first: {place.command('export', source)}"
        )
    if source.suffix == ".engine":
        raise UserError(str(source), "is an engine already", "give the ONNX file that it was built from")


def require_ours(engine: Path) -> None:
    """Raise UserError where what is to be replaced is no engine that this program made."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.workspace import manifest_path
    from dlv3deploy.engines.manifest import format_of

    manifest = manifest_path(engine)
    if format_of(engine) is None and (found := [path for path in (engine, manifest) if path.exists()]):
        rule = f"{found[0]} is there, and was not made by build-engine"
        raise UserError(f"--to {engine}", rule, "name another file, or remove it")


def require_float(graph: ModelProto, source: Path) -> None:
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.engines.precision import is_quantized

    if is_quantized(graph):
        raise UserError(
            str(source),
            "is quantised already, and engines are built from the floating-point file",
            "give that one with --int8, which takes what `calibrate` made of it; `evaluate` and `run` take this one",
        )
