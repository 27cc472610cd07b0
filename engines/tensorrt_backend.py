"""TensorRT and TensorRT-RTX as backends: typed ONNX in, plan out, and what the plan is for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.graph import fix_input, ports
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.workspace import Workspace
from dlv3deploy.engines.build_progress import build_progress
from dlv3deploy.engines.dialect import (
    TENSORRT_RTX,
    Dialect,
    add_profile,
    configure,
    has,
    hold_types,
    is_strongly_typed,
    load_dialect,
    network_flags,
    require_options,
    require_types,
    runs_on,
)
from dlv3deploy.engines.gpu import find_gpu
from dlv3deploy.engines.manifest import Builder, Target
from dlv3deploy.engines.memory import available_bytes, workspace_on_shared_memory
from dlv3deploy.engines.plans.plan import Plan, precision_of_nodes
from dlv3deploy.engines.plans.printed import read_plan
from dlv3deploy.engines.precision import types_in
from dlv3deploy.engines.tensorrt_engine import TensorRTEngine, inspected_plan, refitted
from dlv3deploy.engines.tensorrt_options import TensorRTOptions
from dlv3deploy.engines.timing import LayerTime
from dlv3deploy.engines.timing_cache import timing_cache, timing_cache_file

if TYPE_CHECKING:
    from onnx import ModelProto

MOST_ERRORS = 3
NO_REASON, NO_LAYER = ("", "false"), "Plugin not found"  # a parser's words
OF_A_PLAN = "8.9"  # for one compute capability it compiles once
ANY_GPU, NAMED_GPUS = "any GPU that this version supports", "any GPU of these compute capabilities"


@dataclass(frozen=True)
class TensorRTBackend:
    """One dialect, asked for engines with these options; `weights` is the graph that a stripped one takes its weights from."""

    dialect: Dialect
    options: TensorRTOptions = field(default_factory=TensorRTOptions)
    weights: bytes | None = field(default=None, repr=False)

    def require(self, types: Collection[str]) -> None:
        if not self.dialect.portable and find_gpu() is None:
            raise UserError(
                f"--backend {self.dialect.name}",
                "builds on the very GPU it is for, and this machine has none",
                "use --backend onnxruntime, or tensorrt-rtx, which builds without one",
            )
        for option, is_asked in {"--refittable": self.options.refittable, "--strip-plan": self.options.stripped}.items():
            if is_asked and find_gpu() is None:
                raise UserError(option, "such engines are built on a GPU, and this machine has none", "leave it out")
        trt = load_dialect(self.dialect)
        require_options(self.dialect, trt, self.options)
        require_types(trt, self.options, types)

    def build(self, model: bytes, engine: Path, where: str) -> None:
        """Compile `model`. Raises UserError when the parser refuses the graph (node, operator, reason), when the builder fails,
        and before anything is compiled when this dialect cannot build here."""
        self.require(())
        engine.write_bytes(self._compiled(model, where, _Log()))

    def plan(self, model: bytes, where: str) -> Plan:
        """What TensorRT-RTX makes of `model` for one image, for the options' first capability or `OF_A_PLAN`. No GPU needed.

        Raises UserError as `build` does, and for another dialect.
        """
        if self.dialect is not TENSORRT_RTX:
            raise UserError(f"the plan of {self.dialect.name}", "is read from an engine of it", "ask TensorRT-RTX")
        log = _Log(detailed=True)
        capabilities = self.options.capabilities[:1] or (OF_A_PLAN,)
        options = replace(self.options, capabilities=capabilities, most_images=1)
        replace(self, options=options)._compiled(_of_one_image(model), where, log)
        return read_plan(log.details, self.builder().name)

    def refit(self, earlier: Path, model: bytes, engine: Path) -> None:
        """Write `earlier` with the weights of `model`. Raises CheckFailed and UserError where that cannot be done."""
        engine.write_bytes(refitted(self.dialect, earlier, self.options, model))

    def plan_of(self, engine: Path) -> Plan:
        """The plan in an engine that is there. Raises UserError and CheckFailed as opening it does, which needs its GPU."""
        return inspected_plan(self.dialect, engine, self.options)

    def _compiled(self, model: bytes, where: str, log: _Log) -> memoryview:
        trt = load_dialect(self.dialect)
        require_options(self.dialect, trt, self.options)
        logger = _logger(trt, log)
        builder = trt.Builder(logger)
        core = self.options.dla_core
        if core is not None and core >= builder.num_DLA_cores:
            raise UserError(
                f"--dla {core}", f"this machine has {builder.num_DLA_cores} DLA cores", "count from 0, or leave it out"
            )
        network = builder.create_network(network_flags(trt, self.options))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(model):
            see = (
                f"export it without that (see its graph: {Workspace().command('inspect', where)}), or use --backend onnxruntime"
            )
            raise UserError(where, f"is refused by {self.dialect.name}: {_parser_errors(trt, parser)}", see)
        import onnx

        config = builder.create_builder_config()
        graph = onnx.load_from_string(model)
        require_types(trt, self.options, types := types_in(graph))
        configure(trt, config, self.options, types)
        hold_types(trt, network, self.options, types)
        add_profile(builder, network, config, self.options)
        with build_progress(trt, config), self._timing_cache(config):
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            reason = "; ".join(log.errors[-3:]) or "no reason given"
            others = "try another precision or --backend onnxruntime"
            is_short = self.options.workspace_mb is not None and "memory" in reason.lower()
            remedy = f"raise --workspace-mb {self.options.workspace_mb}, or leave it out" if is_short else others
            raise UserError(where, f"cannot be built by {self.dialect.name}: {reason}", remedy)
        return memoryview(plan)

    def fitted(self, graph: Callable[[], ModelProto]) -> TensorRTOptions:
        """With a workspace limit where the GPU shares the processor's memory and none was asked for."""
        gpu = find_gpu()
        if self.options.workspace_mb is not None or gpu is None or not gpu.shares_memory:
            return self.options
        model = graph()
        batch, channels, height, width = ports(model, "the graph")[0].shape
        if batch is None and channels and height and width:
            model = fix_input(model, (self.options.most_images, channels, height, width))
        return replace(self.options, workspace_mb=workspace_on_shared_memory(model, available_bytes()))

    def _timing_cache(self, config: Any) -> AbstractContextManager[None]:
        """Kept where kernels are timed: TensorRT-RTX times none when it builds."""
        if self.dialect.portable:
            return nullcontext()
        return timing_cache(config, timing_cache_file(self.builder(), self.target()))

    def open(self, engine: Path, spec: ModelSpec) -> TensorRTEngine:
        return TensorRTEngine(self.dialect, engine, spec, self.options, self.weights)

    def layer_times(self, engine: Path, spec: ModelSpec, batch: Batch, runs: int) -> list[LayerTime]:
        with self.open(engine, spec) as opened:
            return opened.layer_times(batch, runs)

    def layer_precision(self, engine: Path, typed: Mapping[str, str]) -> Mapping[str, str]:
        """Strongly typed networks run as the graph is typed; of others the engine is asked, which needs its GPU."""
        if is_strongly_typed(load_dialect(self.dialect), self.options) or not self.runs_here():
            return typed
        try:
            found = precision_of_nodes(self.plan_of(engine))
        except CheckFailed as error:
            say(f"the types that {engine} computes in are not known, those of its graph are written down: {error}")
            return typed
        return {name: found.get(name, precision) for name, precision in typed.items()}

    def runs_here(self) -> bool:
        gpu = find_gpu()
        return gpu is not None and runs_on(self.dialect, load_dialect(self.dialect), gpu.compute_capability)

    def builder(self) -> Builder:
        trt = load_dialect(self.dialect)
        flags = {"strongly_typed": is_strongly_typed(trt, self.options), **self.options.flags()}
        return Builder(self.dialect.name, trt.__version__, flags)

    def target(self) -> Target:
        """This GPU; for a portable dialect the capabilities that were named, or any."""
        gpu = find_gpu()
        if self.dialect.portable or gpu is None:
            return Target(NAMED_GPUS if self.options.capabilities else ANY_GPU, ", ".join(self.options.capabilities) or None)
        return Target(gpu.name, gpu.compute_capability, gpu.driver)


def _of_one_image(model: bytes) -> bytes:
    """A graph of open batch with one image; what is no graph is left for the parser to refuse."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_from_string(model)
    except DecodeError:
        return model
    batch, channels, height, width = ports(graph, "the graph")[0].shape
    if batch is not None or channels is None or height is None or width is None:
        return model
    fixed: bytes = fix_input(graph, (1, channels, height, width)).SerializeToString()
    return fixed


def _parser_errors(trt: Any, parser: Any) -> str:
    """Node, operator and reason of the first errors; TensorRT 8 has the reason alone, with the operator in it."""
    texts = []
    for index in range(min(parser.num_errors, MOST_ERRORS)):
        error = parser.get_error(index)
        lines = [line for line in error.desc().splitlines() if "catchCudaError" not in line]  # it builds without a GPU
        reason, where = "; ".join(lines), ""
        if has(trt, "ParserError.node_name"):
            where = f"node {error.node_name() or '?'} ({error.node_operator() or '?'}): "
        if reason in NO_REASON or NO_LAYER in reason:  # what its checks come to where nothing takes an operator
            reason = "there is no layer for this operator"
        texts.append(f"{where}{reason}")
    return "; ".join(texts)


@dataclass(frozen=True)
class _Log:
    """What a builder says: its errors, and everything in detail where that is asked for."""

    detailed: bool = False
    errors: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)


def _logger(trt: Any, log: _Log) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]  # the module is chosen at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                log.errors.append(message.strip())
            if log.detailed:
                log.details.append(message)

    return Logger()
