"""Opening engines: only those that fit their ONNX file, the installed backend and this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dlv3deploy.core.engine import Batch, Engine
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import require_file
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.workspace import by_building
from dlv3deploy.engines.backend import Backend
from dlv3deploy.engines.dialect import DIALECTS
from dlv3deploy.engines.fresh import check_fresh
from dlv3deploy.engines.gpu import find_gpu
from dlv3deploy.engines.manifest import Manifest, Target
from dlv3deploy.engines.onnxruntime_engine import LAYOUT, NAME, OnnxRuntimeBackend
from dlv3deploy.engines.plans.plan import Plan
from dlv3deploy.engines.providers import of_flags
from dlv3deploy.engines.stripped import weights_for
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_options import TensorRTOptions
from dlv3deploy.engines.timing import LayerTime


def open_engine(path: Path) -> Engine:
    """The engine in `path`. Raises StaleArtefact naming the first field that does not match, UserError when it is no engine."""
    manifest = checked_manifest(path)
    return _with_weights(path, manifest).open(path, manifest.spec)


def checked_manifest(path: Path) -> Manifest:
    """The manifest of an engine that may run here; raises as `open_engine` does, without loading the engine."""
    require_file(path, by_building(path))
    manifest = Manifest.read(path)
    backend = backend_for(manifest)
    check_fresh(path, manifest, backend.builder(), _target_here(backend, manifest))
    return manifest


def plan_of(path: Path, manifest: Manifest) -> Plan:
    """The kernels in an engine of TensorRT. Raises UserError for an engine of ONNX Runtime, which is a graph."""
    backend = backend_for(manifest)
    if not isinstance(backend, TensorRTBackend):
        raise UserError(f"--plan with {path}", f"an engine of {manifest.builder.name} is a graph", "give the ONNX file")
    return backend.plan_of(path)


def layer_times(path: Path, spec: ModelSpec, batch: Batch, runs: int) -> list[LayerTime]:
    """What the layers of an engine or of an ONNX file take, in the order in which they run."""
    backend: Backend = OnnxRuntimeBackend()
    if path.suffix != ".onnx":
        backend = _with_weights(path, checked_manifest(path))
    return backend.layer_times(path, spec, batch, runs)


def _with_weights(path: Path, manifest: Manifest) -> Backend:
    """The backend of an engine, with the weights that it takes where it has none itself."""
    backend = backend_for(manifest)
    if isinstance(backend, TensorRTBackend) and backend.options.stripped:
        return replace(backend, weights=weights_for(path, manifest))
    return backend


def backend_for(manifest: Manifest) -> Backend:
    name = manifest.builder.name
    if name == NAME:
        return OnnxRuntimeBackend(of_flags(manifest.builder.flags), manifest.builder.flags.get(LAYOUT))
    if name in DIALECTS:
        capabilities = manifest.target.compute_capability if DIALECTS[name].portable else None
        named = tuple(capabilities.split(", ")) if capabilities else ()
        return TensorRTBackend(DIALECTS[name], TensorRTOptions.from_flags(manifest.builder.flags, named))
    raise UserError(
        f"an engine of {name!r}", "is of no backend that this version knows", "update dlv3deploy, or build it again"
    )


def _target_here(backend: Backend, manifest: Manifest) -> Target:
    """The target as this machine has it; a portable engine fits when this GPU's capability is among those it was built for."""
    here = backend.target()
    gpu, wanted = find_gpu(), manifest.target.compute_capability
    if manifest.builder.name in DIALECTS and DIALECTS[manifest.builder.name].portable and gpu is not None and wanted:
        digits = gpu.compute_capability.replace(".", "")
        fits = any(digits in text.replace(".", "").replace("_", "") for text in wanted.split(", "))
        return replace(here, compute_capability=wanted if fits else gpu.compute_capability)
    return here
