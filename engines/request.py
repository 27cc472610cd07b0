"""What an engine is asked for: which graph, in which precision, by which backend with which options; and what is by default."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import ModelSpec, OutputSpec
from dlv3deploy.engines import onnxruntime_engine, tensorrt_backend
from dlv3deploy.engines.backend import Backend
from dlv3deploy.engines.dialect import DIALECTS, TENSORRT, TENSORRT_RTX
from dlv3deploy.engines.manifest import Calibration
from dlv3deploy.engines.providers import CPU, CUDA, providers
from dlv3deploy.engines.providers import TENSORRT as TENSORRT_PROVIDER
from dlv3deploy.engines.rewrites.certified import BY_DEFAULT
from dlv3deploy.engines.rewrites.rewrite import HEAD
from dlv3deploy.engines.tensorrt_options import TensorRTOptions, capability_digits

Precision = Literal["fp32", "fp16", "bf16", "int8"]
FOR_ONE_IMAGE = ("regions", "sub-grids")
BACKENDS = (onnxruntime_engine.NAME, *DIALECTS)


@dataclass(frozen=True)
class EngineRequest:
    """`onnx` is what is compiled (for INT8 the Q/DQ model), `source` the floating-point file that it stems from, `command` what
    makes the engine again, `rewrites` are names of `engines.rewrites`, all of them `asked` for or those that can be proved,
    `provider` and `layout` are ONNX Runtime's (`engines.providers`). The engine takes one image, or 1 to `batch` of them."""

    onnx: Path
    source: Path
    spec: ModelSpec
    precision: Precision
    backend: str
    options: TensorRTOptions = field(default_factory=TensorRTOptions)
    provider: str | None = None
    layout: str | None = None
    calibration: Calibration | None = None
    command: str = ""
    rewrites: tuple[str, ...] = ()
    asked: bool = True
    batch: int = 1


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


def default_rewrites(backend: str, output: OutputSpec) -> tuple[str, ...]:
    """The head where a graph upsamples logits, and for TensorRT those that lower its work; none without ONNX Runtime, which
    proves them, and whose own kernels on a CPU skip padding anyway."""
    of_the_head = (HEAD,) if output.kind == "logits" else ()
    if backend == onnxruntime_engine.NAME:
        return of_the_head
    if find_spec("onnxruntime") is None:
        say("no exact rewrites: ONNX Runtime, which proves that they are, is not installed")
        return ()
    return (*BY_DEFAULT, *of_the_head)


def target_label(backend: str, options: TensorRTOptions, provider: str | None, batch: int = 1) -> str:
    """The part of an engine's file name that says what it is for."""
    if batch > 1:
        return f"{target_label(backend, options, provider)}-batch{batch}"
    if backend == onnxruntime_engine.NAME:
        return {CPU: "cpu", CUDA: "cuda", TENSORRT_PROVIDER: "onnxruntime-tensorrt"}[providers(provider)[0]]
    return "-".join(
        [
            *(backend, *map(capability_digits, options.capabilities)),
            *(["dla"] if options.dla_core is not None else []),
            *(["stripped"] if options.stripped else []),
        ]
    )


def check(request: EngineRequest) -> None:
    """Raise UserError where no engine can be built here as asked for, whatever the graph is."""
    if request.backend not in BACKENDS:
        raise UserError(f"backend {request.backend!r}", "is unknown", f"use one of {', '.join(BACKENDS)}")
    if request.precision == "int8" and request.options.refittable:
        raise UserError("--int8 with --refittable", "new scales are a new graph", "leave one of them out")
    if request.options.stripped and request.options.refittable:
        raise UserError("--strip-plan with --refittable", "its weights are those of its ONNX file", "leave one of them out")
    if request.precision == "int8" and request.options.stripped:
        rule = "a stripped engine takes the weights of the floating-point file"
        raise UserError("--int8 with --strip-plan", rule, "leave one of them out")
    if request.batch > 1 and (fixed := [name for name in request.rewrites if name in FOR_ONE_IMAGE]):
        raise UserError(f"--batch with --rewrites {','.join(fixed)}", "needs a fixed batch", "leave one of them out")
    if request.precision == "fp32" and request.options.dla_core is not None:
        raise UserError("--fp32 with --dla", "a DLA computes in half precision", "use --fp16")
    backend_of(request).require([] if request.precision == "fp32" else [request.precision])


def backend_of(request: EngineRequest) -> Backend:
    if request.backend == onnxruntime_engine.NAME:
        if request.options != TensorRTOptions():
            raise UserError("options of TensorRT", "do not fit ONNX Runtime", "leave them out, or choose another --backend")
        return onnxruntime_engine.OnnxRuntimeBackend(request.provider, request.layout)
    return tensorrt_backend.TensorRTBackend(DIALECTS[request.backend], replace(request.options, most_images=request.batch))
