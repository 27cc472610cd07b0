"""Stripped engines: a plan without weights, which takes those of its ONNX file whenever it is opened.

So a plan for each GPU is small, and all of them share one file of weights. Kernels may have been chosen by what the weights
are, so it must be these and no others: opening makes the compiled graph again from the ONNX file, by the rewrites in the
manifest, and holds its sha256 against the manifest's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from dlv3deploy.core.errors import StaleArtefact, UserError
from dlv3deploy.engines.manifest import Manifest
from dlv3deploy.engines.prepare import made_again
from dlv3deploy.engines.refit import sha256_with_weights
from dlv3deploy.engines.request import EngineRequest, Precision
from dlv3deploy.engines.rewrites.head import NAME as WITHOUT_HEAD
from dlv3deploy.engines.tensorrt_options import TensorRTOptions


def weights_for(engine: Path, manifest: Manifest) -> bytes:
    """The graph whose weights a stripped engine takes.

    Raises UserError where the ONNX file is gone, StaleArtefact where the libraries here make another graph of it.
    """
    source, options = engine.parent / manifest.onnx, TensorRTOptions.from_flags(manifest.builder.flags, ())
    if not source.is_file():
        put_back = f"put that file back, or {manifest.rebuild(engine)}"
        raise UserError(str(engine), f"has no weights of its own, and {source}, which has them, is gone", put_back)
    spec = manifest.spec
    if WITHOUT_HEAD in manifest.rewrites:
        spec = replace(spec, output=replace(spec.output, kind="logits"))  # what the file returns
    precision = cast("Precision", manifest.precision)
    request = EngineRequest(source, source, spec, precision, manifest.builder.name, options, batch=options.most_images)
    model = made_again(request, manifest.rewrites)
    if (now := sha256_with_weights(model)) != manifest.graph_sha256:
        field = "sha256 of the graph that its weights are from"
        raise StaleArtefact(str(engine), field, manifest.graph_sha256[:12], now[:12], manifest.rebuild(engine))
    data: bytes = model.SerializeToString()
    return data
