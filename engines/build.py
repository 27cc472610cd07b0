"""build: from an ONNX file to an engine with its manifest, and what its latency is where it can run."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from dlv3deploy.core.errors import CheckFailed, Dlv3Error, UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.graph import fix_input, load_onnx, ports, simplified
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import ModelSpec, OutputSpec
from dlv3deploy.core.workspace import ENGINE_SUFFIX
from dlv3deploy.engines import onnxruntime_engine, tensorrt_backend
from dlv3deploy.engines.backend import Backend
from dlv3deploy.engines.cache import EngineCache, key_of
from dlv3deploy.engines.dialect import DIALECTS, TENSORRT, TENSORRT_RTX
from dlv3deploy.engines.manifest import Calibration, Gate, Manifest, Timing, relative_source
from dlv3deploy.engines.precision import NARROWED, is_quantized, kept_in_half
from dlv3deploy.engines.providers import CPU, CUDA, providers
from dlv3deploy.engines.providers import TENSORRT as TENSORRT_PROVIDER
from dlv3deploy.engines.refit import graph_sha256, require_outputs, takes_weights
from dlv3deploy.engines.release import copied, release
from dlv3deploy.engines.rewrites.certificate import require_several_images
from dlv3deploy.engines.rewrites.certified import BY_DEFAULT, as_far_as_proved, certified
from dlv3deploy.engines.rewrites.rewrite import HEAD, Rewritten
from dlv3deploy.engines.tensorrt_options import TensorRTOptions, capability_digits
from dlv3deploy.engines.timing import measure_latency

if TYPE_CHECKING:
    from onnx import ModelProto

Precision = Literal["fp32", "fp16", "bf16", "int8"]
FOR_ONE_IMAGE = ("regions", "sub-grids")
BATCH = "batch"  # the name of an open one
BACKENDS = (onnxruntime_engine.NAME, *DIALECTS)


@dataclass(frozen=True)
class EngineRequest:
    """`onnx` is what is compiled (for INT8 the Q/DQ model), `source` the floating-point file that it stems from, `command` what
    makes the engine again, `rewrites` are names of `engines.rewrites`, all of them `asked` for or those that can be proved,
    `provider` is ONNX Runtime's (`engines.providers`). The engine takes one image, or 1 to `batch` of them."""

    onnx: Path
    source: Path
    spec: ModelSpec
    precision: Precision
    backend: str
    options: TensorRTOptions = field(default_factory=TensorRTOptions)
    provider: str | None = None
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
        [backend, *map(capability_digits, options.capabilities), *(["dla"] if options.dla_core is not None else [])]
    )


def build(request: EngineRequest, engine: Path, cache: EngineCache | None = None) -> Manifest:
    """Write `engine` and its manifest; when anything fails the older ones stay as they were.

    The engine takes images of the spec's size, one or up to the request's batch, also where the graph leaves its size open. One
    that `cache` has from an equal build is taken from there. Raises UserError when the backend is missing, refuses the model,
    or cannot serve the precision.
    """
    request, backend, sha256 = _settled(request)
    work = _Build(request, backend, sha256, cache, None if cache is None else engine)
    if cache is None:
        return release(engine, lambda fresh: work.made(fresh, engine))
    with cache.slot(key_of(_facts(request, backend, sha256))) as slot:
        known = cache.found(slot)
        if known is None:
            known = release(slot, lambda fresh: work.made(fresh, slot))
        else:
            say(f"an equal engine was built before and is taken from {cache.folder} (--no-cache builds it again)")
        return copied(slot, replace(known, calibration=request.calibration, command=request.command), engine)


def build_key(request: EngineRequest) -> str:
    """What an engine of this request is called in a cache. Raises as `build` does before it builds."""
    return key_of(_facts(*_settled(request)))


def check(request: EngineRequest) -> None:
    """Raise UserError where no engine can be built here as asked for, whatever the graph is."""
    if request.backend not in BACKENDS:
        raise UserError(f"backend {request.backend!r}", "is unknown", f"use one of {', '.join(BACKENDS)}")
    if request.precision == "int8" and request.options.refittable:
        raise UserError("--int8 with --refittable", "new scales are a new graph", "leave one of them out")
    if request.precision == "int8" and request.batch > 1:
        raise UserError("--int8 with --batch", "INT8 files are calibrated and written for one image", "leave one of them out")
    if request.batch > 1 and (fixed := [name for name in request.rewrites if name in FOR_ONE_IMAGE]):
        raise UserError(f"--batch with --rewrites {','.join(fixed)}", "needs a fixed batch", "leave one of them out")
    if request.precision == "fp32" and request.options.dla_core is not None:
        raise UserError("--fp32 with --dla", "a DLA computes in half precision", "use --fp16")
    backend_of(request).require([] if request.precision == "fp32" else [request.precision])


def _settled(request: EngineRequest) -> tuple[EngineRequest, Backend, dict[Path, str]]:
    """The request with what this machine decides, its backend, and the sha256 of the files that it is made from."""
    check(request)
    request = replace(request, options=backend_of(request).fitted(request.onnx))
    return request, backend_of(request), {path: sha256_of(path) for path in {request.onnx, request.source}}


def _facts(request: EngineRequest, backend: Backend, sha256: Mapping[Path, str]) -> dict[str, Any]:
    """Everything that decides what a build makes and how its latency comes out, as JSON."""
    return {
        "onnx": sha256[request.onnx],
        "source": sha256[request.source],
        "spec": request.spec.to_text(),
        "precision": request.precision,
        "rewrites": request.rewrites,
        "asked": request.asked,
        "batch": request.batch,
        "options": asdict(request.options),
        "builder": asdict(backend.builder()),
        "target": asdict(backend.target()),
        "machine": platform.node(),
        "libraries": {name: _version(name) for name in ("onnx", "onnx-ir", "onnxscript", "onnxconverter-common", "numpy")},
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class _Build:
    """A settled request; `earlier` is where an engine may lie that takes new weights, None where everything is to be built."""

    request: EngineRequest
    backend: Backend
    sha256: Mapping[Path, str]
    cache: EngineCache | None
    earlier: Path | None

    def made(self, fresh: Path, place: Path) -> Manifest:
        """Compile into the file `fresh`, which is to lie at `place`, time it where it runs, and say what it is.

        Raises CheckFailed when a file that it is made from is no longer the one whose `sha256` was taken.
        """
        request, backend = self.request, self.backend
        spec = replace(request.spec, input=replace(request.spec.input, dynamic_size=False, dynamic_batch=request.batch > 1))
        done = prepared(request)
        model, spec = done.model, replace(spec, output=done.output)
        for path, then in self.sha256.items():
            if sha256_of(path) != then:
                raise CheckFailed(f"{path} was changed while an engine was being built from it; build it again")
        graph = graph_sha256(model) if request.options.refittable else ""
        if not (graph and self._refitted(model, graph, spec, fresh)):
            backend.build(model.SerializeToString(), fresh, str(request.onnx))
        timing = _timed(backend, fresh, spec, request.batch) if backend.runs_here() else None
        gate = _gate(request, model, backend, spec, self.cache) if request.precision == "int8" else None
        return Manifest(
            spec=spec,
            precision=request.precision,
            engine_sha256=sha256_of(fresh),
            onnx=relative_source(request.source, place),
            onnx_sha256=self.sha256[request.source],
            builder=backend.builder(),
            target=backend.target(),
            graph_sha256=graph,
            layer_precision=backend.layer_precision(fresh, layer_precision(model)),
            rewrites=done.names,
            calibration=request.calibration,
            timing=timing,
            gate=gate,
            command=request.command,
        )

    def _refitted(self, model: ModelProto, graph: str, spec: ModelSpec, fresh: Path) -> bool:
        """Whether `fresh` is now the earlier engine with this model's weights; why not is said where it could have been."""
        backend, earlier, precision = self.backend, self.earlier, self.request.precision
        if earlier is None or not isinstance(backend, tensorrt_backend.TensorRTBackend) or not backend.runs_here():
            return False
        if not takes_weights(earlier, graph, spec, precision, backend.builder(), backend.target()):
            return False
        try:
            backend.refit(earlier, model.SerializeToString(), fresh)
            require_outputs(backend, fresh, spec, model)
        except Dlv3Error as error:
            say(f"{earlier} does not take new weights ({error}), and is built anew")
            return False
        say(f"{earlier} is of the same graph and takes the new weights, nothing is compiled")
        return True


def backend_of(request: EngineRequest) -> Backend:
    if request.backend == onnxruntime_engine.NAME:
        if request.options != TensorRTOptions():
            raise UserError("options of TensorRT", "do not fit ONNX Runtime", "leave them out, or choose another --backend")
        return onnxruntime_engine.OnnxRuntimeBackend(request.provider)
    return tensorrt_backend.TensorRTBackend(DIALECTS[request.backend], replace(request.options, most_images=request.batch))


def prepared(request: EngineRequest) -> Rewritten:
    """The graph for one image of the spec's size, or an open batch of them, rewritten and in the wanted precision.

    Raises UserError where the graph or the backend does not suit the precision.
    """
    model, given = load_onnx(request.onnx), request.spec.input
    _require_precision(model, request)
    if request.batch > 1 and ports(model, str(request.onnx))[0].shape[0] is not None:
        raise UserError(f"--batch {request.batch}", f"{request.onnx} takes one image", "export it with --dynamic-batch")
    shape = (BATCH if request.batch > 1 else 1, 3, given.height, given.width)
    if request.batch > 1 and find_spec("onnxruntime") is not None:
        require_several_images(fix_input(model, shape), str(request.onnx))
    done = Rewritten(fix_input(model, shape), request.spec.output, [])
    if request.rewrites:
        if request.asked:
            done = certified(done.model, request.rewrites, done.output, str(request.onnx))
        else:
            done = as_far_as_proved(done.model, request.rewrites, done.output)
    if request.precision == "int8" and request.backend in DIALECTS:
        done = replace(done, model=kept_in_half(done.model))
    if request.precision in NARROWED:
        done = replace(done, model=fix_input(NARROWED[request.precision](simplified(done.model)), shape))
    return done


def _require_precision(model: ModelProto, request: EngineRequest) -> None:
    if request.precision != "int8" and is_quantized(model):
        raise UserError(
            str(request.onnx), f"is quantised, and --{request.precision} is asked for", "give the floating-point file"
        )


def layer_precision(model: ModelProto) -> dict[str, str]:
    """For every convolution, by name, the type that its input and weights have in the graph: int8, fp16, bf16 or fp32."""
    from onnx import TensorProto

    dequantized = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    names = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
    narrow = {w.name: names[w.data_type] for w in model.graph.initializer if w.data_type in names}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            is_int8 = node.input[0] in dequantized and node.input[1] in dequantized
            found[node.name or node.output[0]] = "int8" if is_int8 else narrow.get(node.input[1], "fp32")
    return found


def _timed(backend: Backend, engine: Path, spec: ModelSpec, images: int) -> Timing:
    with backend.open(engine, spec) as opened:
        return measure_latency(opened, images)


def _gate(
    request: EngineRequest, model: ModelProto, backend: Backend, spec: ModelSpec, cache: EngineCache | None
) -> Gate | None:
    """The floating-point model that an INT8 request stems from, on the same backend: timed now, or its plan beside the INT8
    one's where TensorRT-RTX compiles both and runs neither."""
    precision = default_precision(request.backend)
    plain = replace(request, onnx=request.source, precision=precision, calibration=None, command="")
    if backend.runs_here():
        with TemporaryDirectory() as folder:
            engine = Path(folder) / f"float{ENGINE_SUFFIX}"
            build(plain, engine, cache)
            return Gate(precision, _timed(backend, engine, spec, request.batch))
    if not isinstance(backend, tensorrt_backend.TensorRTBackend) or not backend.dialect.portable:
        return None
    moved, int8_moved = (
        backend.plan(graph.SerializeToString(), str(request.onnx)).bytes_moved for graph in (prepared(plain).model, model)
    )
    return Gate(precision, moved=moved, int8_moved=int8_moved)
