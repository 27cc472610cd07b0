"""`dlv3deploy build-engine --export`: what Triton or DeepStream needs to run the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

    from dlv3deploy.engines.manifest import Manifest
    from dlv3deploy.engines.request import EngineRequest

PIPELINES = ("triton", "deepstream")


def check_pipeline(pipeline: str, folder: Path, name: str, requests: Sequence[EngineRequest]) -> None:
    """Raise UserError, before anything is built, where the pipeline cannot run what is asked for, or the folder is not an
    earlier export of it and holds files."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.engines.pipelines.deepstream import CONFIG, MODES, pixels_to_probabilities
    from dlv3deploy.engines.pipelines.triton import PLATFORMS

    place, marker = (folder / name, "config.pbtxt") if pipeline == "triton" else (folder, CONFIG)
    if place.is_dir() and any(place.iterdir()) and not (place / marker).is_file():
        raise UserError(
            f"--export-to {folder}", f"{place} holds files, and none is a {marker}", "name a folder that is empty or new"
        )
    for request in requests:
        if pipeline == "triton" and request.options.stripped:
            rule = "Triton opens a plan as it is, and this one has no weights"
            raise UserError("--strip-plan with --export triton", rule, "leave one of them out")
        if pipeline == "triton" and request.backend not in PLATFORMS:
            known = " or ".join(PLATFORMS)
            raise UserError("--export triton", f"Triton runs no engines of {request.backend}", f"use --backend {known}")
        if pipeline == "deepstream":
            idle = {
                "--refittable": request.options.refittable,
                "--strip-plan": request.options.stripped,
                "--version-compatible": request.options.version_compatible,
                "--hardware-compatible": request.options.hardware_compatible,
            }
            for option in (name for name, is_asked in idle.items() if is_asked):
                rule = "nvinfer builds its own engine, which knows nothing of it"
                raise UserError(f"{option} with --export deepstream", rule, "leave one of them out")
            if request.batch > 1:
                rule = "nvinfer builds its own engine of the folder's graph, which is for one image"
                raise UserError("--batch with --export deepstream", rule, "leave --batch out")
            if request.precision not in MODES:
                raise UserError(f"--{request.precision} with --export deepstream", "nvinfer has no such mode", "use --fp16")
            pixels_to_probabilities(_fixed(request.source, request.spec.input.height, request.spec.input.width), request.spec)


def export_pipeline(pipeline: str, folder: Path, name: str, request: EngineRequest, engine: Path, manifest: Manifest) -> None:
    """Write the folder and say what to do with it. Raises UserError where the pipeline cannot run the model."""
    from dlv3deploy.core.graph import ports
    from dlv3deploy.core.progress import say
    from dlv3deploy.engines.pipelines.deepstream import MODEL, write_deepstream
    from dlv3deploy.engines.pipelines.triton import write_triton

    size = manifest.spec.input.height, manifest.spec.input.width
    if pipeline == "triton":
        shapes = ports(_fixed(request.onnx, *size), str(request.onnx))
        made = write_triton(folder, name, engine, manifest, shapes, request.batch)
        flag = " --backend-config=tensorrt,version-compatible=true" if request.options.version_compatible else ""
        say(f"wrote {made}; serve it with: tritonserver --model-repository {folder}{flag}")
        return
    graph, cache = request.source, None
    if request.precision == "int8":
        from dlv3deploy.calibration.implicit import ImplicitFiles

        implicit = ImplicitFiles.beside(request.onnx)
        graph, cache = implicit.graph, implicit.cache
    config = write_deepstream(folder, _fixed(graph, *size), manifest.spec, request.precision, cache, request.options)
    say(f"wrote {config}; nvinfer takes it as config-file-path, and builds its engine from {folder / MODEL}")


def _fixed(path: Path, height: int, width: int) -> ModelProto:
    from dlv3deploy.core.graph import fix_input, load_onnx

    return fix_input(load_onnx(path), (1, 3, height, width))
