"""build: from an ONNX file to an engine with its manifest, and what its latency is where it can run."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dlv3deploy.core.errors import CheckFailed, Dlv3Error
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.workspace import ENGINE_SUFFIX
from dlv3deploy.engines import tensorrt_backend
from dlv3deploy.engines.backend import Backend
from dlv3deploy.engines.cache import EngineCache, key_of
from dlv3deploy.engines.manifest import Gate, Manifest, Timing, relative_source
from dlv3deploy.engines.prepare import layer_precision, made_again, of_the_size, prepared
from dlv3deploy.engines.refit import graph_sha256, require_outputs, sha256_with_weights, takes_weights
from dlv3deploy.engines.release import copied, release
from dlv3deploy.engines.request import EngineRequest, backend_of, check, default_precision
from dlv3deploy.engines.rewrites.rewrite import Rewritten
from dlv3deploy.engines.timing import latencies_in_turns, measure_latency

if TYPE_CHECKING:
    from onnx import ModelProto


def build(request: EngineRequest, engine: Path, cache: EngineCache | None = None) -> Manifest:
    """Write `engine` and its manifest; when anything fails the older ones stay as they were.

    The engine takes images of the spec's size, one or up to the request's batch, also where the graph leaves its size open. One
    that `cache` has from an equal build is taken from there. Raises UserError when the backend is missing, refuses the model,
    or cannot serve the precision.
    """
    check(request)
    sha256 = _files_of(request)
    key = key_of(_facts(request, sha256))
    work = _Build(request, sha256, cache, None if cache is None else engine)
    if cache is None:
        return release(engine, lambda fresh: work.made(fresh, engine))
    with cache.slot(key) as slot:
        known = cache.found(slot)
        if known is None:
            known = release(slot, lambda fresh: work.made(fresh, slot))
        else:
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(slot.stat().st_mtime))
            what = f"{request.precision.upper()}, {', '.join(request.rewrites) or 'no rewrites'}"
            say(f"an equal engine ({what}) was built {made} and is taken from {cache.folder} (--no-cache builds it again)")
        return copied(slot, as_asked(known, request), engine)


def as_asked(known: Manifest, request: EngineRequest) -> Manifest:
    """The manifest of an equal engine, which may have been built of another copy of the same files, for this request."""
    source = str(request.source.resolve())
    return replace(known, onnx=source, calibration=request.calibration, command=request.command)


def build_key(request: EngineRequest) -> str:
    """What an engine of this request is called in a cache. Raises as `build` does before it builds."""
    check(request)
    return key_of(_facts(request, _files_of(request)))


def _settled(request: EngineRequest) -> EngineRequest:
    """The request with what this machine decides; not part of its key, for memory that is free now is another an hour later."""
    return replace(request, options=backend_of(request).fitted(lambda: of_the_size(request)))


def _files_of(request: EngineRequest) -> dict[Path, str]:
    """The sha256 of each file that it is made from."""
    return {path: sha256_of(path) for path in {request.onnx, request.source}}


def _facts(request: EngineRequest, sha256: Mapping[Path, str]) -> dict[str, Any]:
    """Everything that decides what a build makes and how its latency comes out, as JSON."""
    backend = backend_of(request)
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
    """A request; `earlier` is where an engine may lie that takes new weights, None where everything is to be built."""

    request: EngineRequest
    sha256: Mapping[Path, str]
    cache: EngineCache | None
    earlier: Path | None

    def made(self, fresh: Path, place: Path) -> Manifest:
        """Compile into the file `fresh`, which is to lie at `place`, time it where it runs, and say what it is.

        Raises CheckFailed when a file that it is made from is no longer the one whose `sha256` was taken.
        """
        request = _settled(self.request)
        backend = backend_of(request)
        spec = replace(request.spec, input=replace(request.spec.input, dynamic_size=False, dynamic_batch=request.batch > 1))
        done, graph = prepared(request), ""
        model, spec = done.model, replace(spec, output=done.output)
        if request.options.refittable:
            graph = graph_sha256(model)
        elif isinstance(backend, tensorrt_backend.TensorRTBackend) and request.options.stripped:
            model = made_again(request, done.names)
            graph, backend = sha256_with_weights(model), replace(backend, weights=model.SerializeToString())
        self._require_files_as_they_were()
        if not (request.options.refittable and self._refitted(done, graph, spec, fresh)):
            backend.build(model.SerializeToString(), fresh, str(request.onnx))
        gate = _gate(request, fresh, model, backend, spec, self.cache) if request.precision == "int8" else None
        timing = gate.int8_timing if gate is not None else None
        if timing is None and backend.runs_here():
            timing = _timed(backend, fresh, spec, request.batch)
        return Manifest(
            spec=spec,
            precision=request.precision,
            engine_sha256=sha256_of(fresh),
            onnx=relative_source(request.source, place),
            onnx_sha256=self.sha256[request.source],
            builder=backend.builder(),
            target=backend.target(),
            images=request.batch,
            graph_sha256=graph,
            layer_precision=backend.layer_precision(fresh, layer_precision(model)),
            rewrites=done.names,
            calibration=request.calibration,
            timing=timing,
            gate=gate,
            command=request.command,
        )

    def _require_files_as_they_were(self) -> None:
        for path, then in self.sha256.items():
            if sha256_of(path) != then:
                raise CheckFailed(f"{path} was changed while an engine was being built from it; build it again")

    def _refitted(self, done: Rewritten, graph: str, spec: ModelSpec, fresh: Path) -> bool:
        """Whether `fresh` is now the earlier engine with this model's weights; why not is said where it could have been."""
        single = done.model
        if self.request.precision == "bf16":  # which ONNX Runtime, that it is compared with, has no convolutions for
            single = made_again(replace(self.request, precision="fp32"), done.names)
        backend, earlier, precision = backend_of(self.request), self.earlier, self.request.precision
        if earlier is None or not isinstance(backend, tensorrt_backend.TensorRTBackend) or not backend.runs_here():
            return False
        if not takes_weights(earlier, graph, spec, precision, backend.builder(), backend.target()):
            return False
        try:
            backend.refit(earlier, done.model.SerializeToString(), fresh)
            require_outputs(backend, fresh, spec, single)
        except Dlv3Error as error:
            say(f"{earlier} does not take new weights ({error}), and is built anew")
            return False
        say(f"{earlier} is of the same graph and takes the new weights, nothing is compiled")
        return True


def _timed(backend: Backend, engine: Path, spec: ModelSpec, images: int) -> Timing:
    with backend.open(engine, spec) as opened:
        return measure_latency(opened, images)


def _gate(
    request: EngineRequest, engine: Path, model: ModelProto, backend: Backend, spec: ModelSpec, cache: EngineCache | None
) -> Gate | None:
    """The floating-point model that an INT8 request stems from, on the same backend: both timed in turns, or its plan beside
    the INT8 one's where TensorRT-RTX compiles both and runs neither."""
    precision = default_precision(request.backend)
    plain = replace(request, onnx=request.source, precision=precision, calibration=None, command="")
    if backend.runs_here():
        with TemporaryDirectory() as folder:
            floating = Path(folder) / f"float{ENGINE_SUFFIX}"
            float_spec = build(plain, floating, cache).spec
            with backend.open(engine, spec) as int8, backend_of(plain).open(floating, float_spec) as other:
                int8_timing, timing = latencies_in_turns([int8, other], request.batch)
            return Gate(precision, timing, int8_timing)
    if not isinstance(backend, tensorrt_backend.TensorRTBackend) or not backend.dialect.portable:
        return None
    moved, int8_moved = (
        backend.plan(graph.SerializeToString(), str(request.onnx)).bytes_moved for graph in (prepared(plain).model, model)
    )
    return Gate(precision, moved=moved, int8_moved=int8_moved)
