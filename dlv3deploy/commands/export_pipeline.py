"""`dlv3deploy build-engine --export`: what Triton or DeepStream needs to run the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

    from dlv3deploy.engines.build import EngineRequest
    from dlv3deploy.engines.manifest import Manifest

PIPELINES = ("triton", "deepstream")


def export_pipeline(pipeline: str, folder: Path, name: str, request: EngineRequest, engine: Path, manifest: Manifest) -> None:
    """Write the folder and say what to do with it. Raises UserError where the pipeline cannot run the model."""
    from dlv3deploy.core.graph import ports
    from dlv3deploy.core.progress import say
    from dlv3deploy.engines.pipelines.deepstream import write_deepstream
    from dlv3deploy.engines.pipelines.triton import write_triton

    if pipeline == "triton":
        made = write_triton(folder, name, engine, manifest, ports(_fixed(request.onnx, manifest), str(request.onnx)))
        say(f"wrote {made}; serve it with: tritonserver --model-repository {folder}")
        return
    graph, cache = request.source, None
    if request.precision == "int8":
        from dlv3deploy.calibration.implicit import ImplicitFiles

        implicit = ImplicitFiles.beside(request.onnx)
        graph, cache = implicit.graph, implicit.cache
    config = write_deepstream(folder, _fixed(graph, manifest), manifest.spec, request.precision, cache)
    say(f"wrote {config}; nvinfer takes it as config-file-path, and builds its engine from {folder / 'model.onnx'}")


def _fixed(path: Path, manifest: Manifest) -> ModelProto:
    from dlv3deploy.core.graph import fix_input, load_onnx

    return fix_input(load_onnx(path), (1, 3, manifest.spec.input.height, manifest.spec.input.width))
