"""build: from an ONNX file to an engine with its manifest, and what its latency is where it can run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing, sha256_of
from dlv3deploy.core.graph import fix_input, load_onnx, simplified
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.workspace import manifest_path
from dlv3deploy.engines import onnxruntime_engine, tensorrt_backend
from dlv3deploy.engines.backend import Backend
from dlv3deploy.engines.dialect import DIALECTS, TENSORRT, TENSORRT_RTX
from dlv3deploy.engines.manifest import Calibration, Manifest, Timing, relative_source
from dlv3deploy.engines.precision import is_quantized, to_float16
from dlv3deploy.engines.rewrites.certified import BY_DEFAULT, certified
from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.timing import measure_latency

if TYPE_CHECKING:
    from onnx import ModelProto

Precision = Literal["fp32", "fp16", "int8"]
BACKENDS = (onnxruntime_engine.NAME, *DIALECTS)


@dataclass(frozen=True)
class EngineRequest:
    """`onnx` is what is compiled (for INT8 the Q/DQ model), `source` the floating-point file that it stems from, `command` what
    makes the engine again, `rewrites` are names of `engines.rewrites`."""

    onnx: Path
    source: Path
    spec: ModelSpec
    precision: Precision
    backend: str
    capabilities: tuple[str, ...] = ()
    calibration: Calibration | None = None
    command: str = ""
    rewrites: tuple[str, ...] = ()


def default_backend() -> str:
    """TensorRT, then TensorRT-RTX, where their bindings are and a GPU that they run on; otherwise ONNX Runtime."""
    for dialect in (TENSORRT, TENSORRT_RTX):
        try:
            if tensorrt_backend.TensorRTBackend(dialect).runs_here():
                return dialect.name
        except UserError:
            continue
    return onnxruntime_engine.NAME


def default_precision(backend: str) -> Precision:
    return "fp32" if backend == onnxruntime_engine.NAME else "fp16"


def default_rewrites(backend: str) -> tuple[str, ...]:
    """None for ONNX Runtime, whose kernels on a CPU skip padding themselves, nor where it is missing: it proves them."""
    if backend == onnxruntime_engine.NAME:
        return ()
    if find_spec("onnxruntime") is None:
        say("no exact rewrites: ONNX Runtime, which proves that they are, is not installed")
        return ()
    return BY_DEFAULT


def target_label(backend: str, capabilities: tuple[str, ...]) -> str:
    """The part of an engine's file name that says what it is for."""
    if backend == onnxruntime_engine.NAME:
        return "cuda" if onnxruntime_engine.providers()[0] == onnxruntime_engine.CUDA else "cpu"
    return "-".join([backend, *(c.lower().removeprefix("sm_").removeprefix("sm").replace(".", "") for c in capabilities)])


def build(request: EngineRequest, engine: Path) -> Manifest:
    """Write `engine` and its manifest; when anything fails the older ones stay as they were.

    The engine takes one image of the spec's size, also where the graph leaves its size open. Raises UserError when the backend
    is missing, refuses the model, or cannot serve the precision.
    """
    if request.backend not in BACKENDS:
        raise UserError(f"backend {request.backend!r}", "is unknown", f"use one of {', '.join(BACKENDS)}")
    spec = replace(request.spec, input=replace(request.spec.input, dynamic_size=False, dynamic_batch=False))
    onnx_sha256 = sha256_of(request.source)  # before it is read: a file exported meanwhile then makes the engine stale
    model, rewrites = _prepared(request)
    backend = _backend(request)
    with replacing(engine) as fresh, replacing(manifest_path(engine)) as fresh_manifest:
        backend.build(model.SerializeToString(), fresh, str(request.onnx))
        timing = None
        if backend.runs_here():
            with backend.open(fresh, spec) as opened:
                timing = measure_latency(opened)
        manifest = Manifest(
            spec=spec,
            precision=request.precision,
            engine_sha256=sha256_of(fresh),
            onnx=relative_source(request.source, engine),
            onnx_sha256=onnx_sha256,
            builder=backend.builder(),
            target=backend.target(),
            layer_precision=backend.layer_precision(fresh, layer_precision(model)),
            rewrites=rewrites,
            calibration=request.calibration,
            timing=timing,
            command=request.command,
        )
        manifest.write(fresh_manifest)
    return manifest


def _backend(request: EngineRequest) -> Backend:
    if request.backend == onnxruntime_engine.NAME:
        if request.capabilities:
            raise UserError("--target", "is for TensorRT-RTX engines", "leave it out with ONNX Runtime")
        return onnxruntime_engine.OnnxRuntimeBackend()
    return tensorrt_backend.TensorRTBackend(DIALECTS[request.backend], request.capabilities)


def _prepared(request: EngineRequest) -> tuple[ModelProto, tuple[str, ...]]:
    """The graph for one image of the spec's size, rewritten and in the wanted precision, and the rewrites that changed it.

    Raises UserError where the graph or the backend does not suit the precision.
    """
    model, shape = load_onnx(request.onnx), (1, 3, request.spec.input.height, request.spec.input.width)
    _require_precision(model, request)
    model, changes = fix_input(model, shape), list[Change]()
    if request.rewrites:
        model, changes = certified(model, request.rewrites, str(request.onnx))
    if request.precision == "fp16":
        model = fix_input(to_float16(simplified(model)), shape)
    return model, tuple(dict.fromkeys(change.rewrite for change in changes))


def _require_precision(model: ModelProto, request: EngineRequest) -> None:
    if request.precision != "int8" and is_quantized(model):
        raise UserError(
            str(request.onnx), f"is quantised, and --{request.precision} is asked for", "give the floating-point file"
        )
    on_cpu = request.backend == onnxruntime_engine.NAME and onnxruntime_engine.providers()[0] == onnxruntime_engine.CPU
    if request.precision == "fp16" and on_cpu:
        raise UserError(
            "--fp16 with ONNX Runtime", "needs a GPU, CPUs only emulate it", "use --fp32, --int8 or --backend tensorrt-rtx"
        )


def layer_precision(model: ModelProto) -> dict[str, str]:
    """For every convolution, by name, the type that its input and weights have in the graph: int8, fp16 or fp32."""
    from onnx import TensorProto

    dequantized = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    half = {w.name for w in model.graph.initializer if w.data_type == TensorProto.FLOAT16}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            is_int8 = node.input[0] in dequantized and node.input[1] in dequantized
            found[node.name or node.output[0]] = "int8" if is_int8 else "fp16" if node.input[1] in half else "fp32"
    return found


def measure_float_latency(request: EngineRequest) -> Timing:
    """Latency of the floating-point model that an INT8 request stems from, on the same backend, for comparison."""
    plain = replace(request, onnx=request.source, precision=default_precision(request.backend), calibration=None)
    spec = replace(plain.spec, input=replace(plain.spec.input, dynamic_size=False, dynamic_batch=False))
    model, _ = _prepared(plain)
    backend = _backend(plain)
    with TemporaryDirectory() as folder:
        engine = Path(folder) / "float.engine"
        backend.build(model.SerializeToString(), engine, str(plain.onnx))
        with backend.open(engine, spec) as opened:
            return measure_latency(opened)
