"""Refit: new weights in an engine that was built for the same graph, which takes seconds where a build takes minutes.

Only what convolutions and products are given may differ: weights and biases. Scales of Q/DQ pairs, sizes and attributes are of
the graph, for a compiler may have used their values.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.engines.backend import Backend
from dlv3deploy.engines.cache import code_sha256
from dlv3deploy.engines.manifest import Builder, Manifest, Target
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from dlv3deploy.engines.timing import noise_for

if TYPE_CHECKING:
    from onnx import ModelProto

REFITTED_TOLERANCE = 0.05  # of the largest output: half precision stays well below it, wrong weights do not
HAVE_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def graph_sha256(model: ModelProto) -> str:
    """Of everything that a graph computes but for the values of weights and biases, whose shapes and types count, and of the
    code that makes an engine of it."""
    import onnx

    bare = onnx.GraphProto()
    bare.CopyFrom(model.graph)
    del bare.value_info[:]
    weights = {name for node in bare.node if node.op_type in HAVE_WEIGHTS for name in node.input[1:]}
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    for tensor in bare.initializer:
        if tensor.name in weights and tensor.data_type in floats:
            shape = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            tensor.CopyFrom(shape)
    return hashlib.sha256(code_sha256().encode() + bare.SerializeToString(deterministic=True)).hexdigest()


def sha256_with_weights(model: ModelProto) -> str:
    """Of everything that a graph says."""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def takes_weights(engine: Path, graph: str, spec: ModelSpec, precision: str, builder: Builder, target: Target) -> bool:
    """Whether an engine is there that differs in weights alone from what is asked for, a graph of the `graph_sha256` given."""
    with suppress(UserError):
        if engine.is_file():
            earlier = Manifest.read(engine)
            wanted = (graph, spec.input, precision, _unlimited(builder), target, sha256_of(engine))
            made_by = _unlimited(earlier.builder)
            found = (earlier.graph_sha256, earlier.spec.input, earlier.precision, made_by, earlier.target)
            return wanted == (*found, earlier.engine_sha256) and not earlier.broken_seals()
    return False


def _unlimited(builder: Builder) -> Builder:
    """Without the memory that kernels might take while they were chosen, which on a Jetson is what was free then."""
    return replace(builder, flags={name: value for name, value in builder.flags.items() if name != "workspace_mb"})


def require_outputs(backend: Backend, engine: Path, spec: ModelSpec, model: ModelProto) -> None:
    """Raise CheckFailed where a refitted engine does not return what ONNX Runtime makes of the graph."""
    with backend.open(engine, spec) as opened:
        found = opened.infer(noise_for(opened)).astype(np.float64)
    with OnnxRuntimeEngine(model.SerializeToString(), spec, str(engine), "cpu") as plain:
        wanted = plain.infer(noise_for(plain)).astype(np.float64)
    apart = float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float64).tiny))
    if not apart <= REFITTED_TOLERANCE:
        raise CheckFailed(f"its outputs are {apart:.1e} of the largest from the graph's")
