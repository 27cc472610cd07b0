"""ONNX Runtime: runs ONNX files anywhere, and its optimised models are the engines of machines without TensorRT."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs, check_batch
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.workspace import Workspace
from dlv3deploy.engines.gpu import find_gpu
from dlv3deploy.engines.manifest import Builder, Target
from dlv3deploy.engines.onnxruntime_int8 import with_constants_of_its_own, with_unsigned_activations
from dlv3deploy.engines.providers import CPU, PLAIN, TENSORRT, layouts, providers, runtime, with_options
from dlv3deploy.engines.tensorrt_options import TensorRTOptions
from dlv3deploy.engines.timing import WARM_UP_RUNS, LayerTime, medians

if TYPE_CHECKING:
    import onnxruntime
    from onnx import ModelProto

NAME = "onnxruntime"
LAYOUT = "layout"  # the flag in a manifest
KERNEL, EXECUTED = "_kernel_time", "SequentialExecutor::Execute"  # in its profiles: how a node's name ends, and a whole run


class OnnxRuntimeEngine(ClosingEngine):
    """A session on the chosen provider, or on CUDA where ONNX Runtime has it, otherwise on the CPU; which one is in `name`.

    A fallback from CUDA is said, one from a provider that was chosen is an error. With a folder for a `profile` every node is
    timed, which slows it.
    """

    def __init__(
        self,
        model: bytes,
        spec: ModelSpec,
        where: str,
        provider: str | None = None,
        layout: str | None = None,
        profile: Path | None = None,
    ) -> None:
        module, wanted = runtime(), providers(provider)
        try:
            options = _options(module)
            if profile is not None:
                options.enable_profiling, options.profile_file_prefix = True, str(profile / "profile")
            if wanted[0] != CPU and provider is not None and not _computes_sizes(model):  # which is always done on the CPU
                options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # no node goes there in silence
            if wanted[0] == CPU and layout == PLAIN:
                options.graph_optimization_level = module.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            self.session: Any = module.InferenceSession(model, options, providers=with_options(wanted, model, layout))
        except Exception as error:  # ONNX Runtime's own exceptions share no public base
            raise UserError(
                where, f"cannot be loaded by ONNX Runtime ({_reason(error)})", "export or build it again"
            ) from error
        running = self.session.get_providers()[0]
        if running != wanted[0]:
            if provider is not None:
                raise UserError(where, f"ONNX Runtime could not start {wanted[0]}", "`dlv3deploy doctor` says what is missing")
            say(f"ONNX Runtime could not start {wanted[0]} and runs on the CPU; `dlv3deploy doctor` says what is missing")
        self.spec = spec
        given = self.session.get_inputs()[0]
        self._input, self._element = given.name, np.float16 if "float16" in given.type else np.float32
        batch, _, height, width = (d if isinstance(d, int) else None for d in given.shape)
        self.input_shape = (batch, 3, height, width)
        self.name = f"ONNX Runtime {module.__version__}, {running.removesuffix('ExecutionProvider')}"

    @classmethod
    def open(cls, path: Path, spec: ModelSpec) -> OnnxRuntimeEngine:
        """An ONNX file as it stands."""
        return cls(path.read_bytes(), spec, str(path))

    def infer(self, batch: Batch) -> Outputs:
        check_batch(self, batch)
        try:
            outputs = self.session.run(None, {self._input: batch.astype(self._element, copy=False)})[0]
        except Exception as error:  # as above
            raise CheckFailed(f"{self.name} failed on {batch.shape}: {_reason(error)}") from error
        return np.asarray(outputs, np.float32) if np.issubdtype(outputs.dtype, np.floating) else np.asarray(outputs)

    def close(self) -> None:
        self.session = None


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """Models as ONNX Runtime optimises them for the provider that will run them: the chosen one, or this machine's best; with a
    layout of `providers.LAYOUTS`, None for ONNX Runtime's own choice."""

    provider: str | None = None
    layout: str | None = None

    def require(self, types: Collection[str]) -> None:
        wanted = providers(self.provider)
        if "bf16" in types:
            raise UserError(
                "--bf16 with ONNX Runtime", "it has no BF16 convolutions", "use --backend tensorrt-rtx, or tensorrt"
            )
        if "fp16" in types and wanted[0] == CPU:
            raise UserError(
                "--fp16 with ONNX Runtime", "needs a GPU, CPUs only emulate it", "use --fp32, --int8 or --backend tensorrt-rtx"
            )

    def build(self, model: bytes, engine: Path, where: str) -> None:
        """Optimise `model` into `engine`. Raises UserError when ONNX Runtime refuses it."""
        wanted = providers(self.provider)
        if wanted[0] == TENSORRT:  # which compiles the graph as it is, when it opens it
            engine.write_bytes(model)
            return
        module = runtime()
        options = _options(module)
        options.graph_optimization_level = module.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(engine)
        try:
            module.InferenceSession(_fusable(model, wanted), options, providers=wanted)
        except Exception as error:  # ONNX Runtime's own exceptions share no public base
            see = f"see its graph: {Workspace().command('inspect', where)}"
            raise UserError(where, f"cannot be optimised by ONNX Runtime ({_reason(error)})", see) from error

    def open(self, engine: Path, spec: ModelSpec) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(engine.read_bytes(), spec, str(engine), self.provider, self.layout)

    def layer_times(self, engine: Path, spec: ModelSpec, batch: Batch, runs: int) -> list[LayerTime]:
        """By ONNX Runtime's own profile, which has the nodes as it fused them."""
        model, place = engine.read_bytes(), TemporaryDirectory()
        with place as folder, OnnxRuntimeEngine(model, spec, str(engine), self.provider, self.layout, Path(folder)) as opened:
            for _ in range(WARM_UP_RUNS + runs):
                opened.infer(batch)
            events = json.loads(Path(opened.session.end_profiling()).read_text(encoding="utf-8"))
        spans = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == EXECUTED][WARM_UP_RUNS:]
        kernels = [event for event in events if event["cat"] == "Node" and event["name"].endswith(KERNEL)]
        return medians([[_layer(e) for e in kernels if start <= e["ts"] <= end] for start, end in spans])

    def layer_precision(self, engine: Path, typed: Mapping[str, str]) -> Mapping[str, str]:
        """Read from the optimised graph: where ONNX Runtime does not fuse a Q/DQ convolution, it runs in float."""
        import onnx

        provider = providers(self.provider)[0]
        if provider == TENSORRT:  # whose engine is the graph itself, which it runs as it is typed
            return typed
        has_halves = provider != CPU and "fp16" in typed.values()  # a CPU casts them to single precision
        found = {}
        for node in onnx.load(str(engine)).graph.node:
            if node.op_type == "QLinearConv":
                found[node.name or node.output[0]] = "int8"
            elif node.op_type.endswith("Conv"):
                found[node.name or node.output[0]] = "fp16" if has_halves else "fp32"
        return found

    def fitted(self, graph: Callable[[], ModelProto]) -> TensorRTOptions:  # noqa: ARG002 (see Backend)
        return TensorRTOptions()

    def runs_here(self) -> bool:
        return True

    def builder(self) -> Builder:
        wanted = providers(self.provider)
        flags = {"optimisation": "extended", "providers": wanted}
        is_own = self.layout in (None, *layouts(self.provider)[:1])
        return Builder(NAME, runtime().__version__, flags if is_own else {**flags, LAYOUT: self.layout})

    def target(self) -> Target:
        """The kind of processor; extended optimisations use nothing that is particular to one CPU of the kind."""
        if providers(self.provider)[0] != CPU and (gpu := find_gpu()):
            return Target(gpu.name, gpu.compute_capability, gpu.driver)
        return Target(f"cpu ({platform.machine()})")


def _computes_sizes(model: bytes) -> bool:
    import onnx

    return any(node.op_type == "Shape" for node in onnx.load_from_string(model).graph.node)


def _fusable(model: bytes, wanted: list[str]) -> bytes:
    """On a CPU, the form of a Q/DQ graph that ONNX Runtime fuses; other graphs as they are."""
    import onnx

    if wanted[0] != CPU:
        return model
    data: bytes = with_unsigned_activations(with_constants_of_its_own(onnx.load_from_string(model))).SerializeToString()
    return data


def lacks_vnni() -> bool:
    """Whether this is an x86 processor whose products of unsigned and signed bytes saturate at 16 bits."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return platform.machine() in ("x86_64", "AMD64") and "vnni" not in flags


def _options(module: Any) -> onnxruntime.SessionOptions:
    options = module.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads would take the time of other engines
    if lacks_vnni():
        options.add_session_config_entry("session.x64quantprecision", "1")  # slower, and exact
    return options


def _layer(event: Mapping[str, Any]) -> tuple[str, str, float]:
    """Name, kind and milliseconds of a node in a profile."""
    return event["name"].removesuffix(KERNEL), event["args"].get("op_name", ""), event["dur"] / 1e3


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
