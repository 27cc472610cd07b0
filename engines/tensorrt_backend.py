"""TensorRT and TensorRT-RTX as backends: typed ONNX in, plan out, and what the plan is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.workspace import Workspace
from dlv3deploy.engines.dialect import Dialect, compute_capability_of, load_dialect, network_flags
from dlv3deploy.engines.gpu import find_gpu
from dlv3deploy.engines.manifest import Builder, Target
from dlv3deploy.engines.tensorrt_engine import TensorRTEngine

ANY_GPU = "any GPU that this version supports"


@dataclass(frozen=True)
class TensorRTBackend:
    """`capabilities` ("8.6", "sm_89", …) name what a portable dialect builds for; empty means every one it knows."""

    dialect: Dialect
    capabilities: tuple[str, ...] = ()

    def build(self, model: bytes, engine: Path, where: str) -> None:
        """Compile `model`. Raises UserError when the parser refuses the graph (node, operator, reason), when the builder fails,
        and before anything is loaded when this dialect cannot build here."""
        self._require_buildable()
        trt = load_dialect(self.dialect)
        messages: list[str] = []
        logger = _logger(trt, messages)
        builder = trt.Builder(logger)
        network = builder.create_network(network_flags(trt))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(model):
            see = f"see its graph: {Workspace().command('inspect', where)}"
            raise UserError(where, f"is refused by {self.dialect.name}: {_parser_errors(parser)}", see)
        config = builder.create_builder_config()
        if self.capabilities:
            config.num_compute_capabilities = len(self.capabilities)
            for index, text in enumerate(self.capabilities):
                config.set_compute_capability(compute_capability_of(trt, text), index)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            reason = "; ".join(messages[-3:]) or "no reason given"
            raise UserError(
                where, f"cannot be built by {self.dialect.name}: {reason}", "try another precision or --backend onnxruntime"
            )
        engine.write_bytes(memoryview(plan))

    def _require_buildable(self) -> None:
        if self.dialect.portable:
            return
        if find_gpu() is None:
            raise UserError(
                f"--backend {self.dialect.name}",
                "builds on the very GPU it is for, and this machine has none",
                "use --backend onnxruntime, or tensorrt-rtx, which builds without one",
            )
        if self.capabilities:
            raise UserError("--target", f"{self.dialect.name} always builds for this machine's GPU", "leave it out")

    def open(self, engine: Path, spec: ModelSpec) -> TensorRTEngine:
        return TensorRTEngine(self.dialect, engine, spec)

    def layer_precision(self, engine: Path, typed: Mapping[str, str]) -> Mapping[str, str]:  # noqa: ARG002 (see Backend)
        """Strongly typed networks run as the graph is typed."""
        return typed

    def runs_here(self) -> bool:
        return find_gpu() is not None

    def builder(self) -> Builder:
        return Builder(self.dialect.name, load_dialect(self.dialect).__version__, {"strongly_typed": True})

    def target(self) -> Target:
        """This GPU; for a portable dialect the capabilities that were named, or any."""
        gpu = find_gpu()
        if self.dialect.portable or gpu is None:
            return Target(ANY_GPU, ", ".join(self.capabilities) or None)
        return Target(gpu.name, gpu.compute_capability, gpu.driver)


def _parser_errors(parser: Any) -> str:
    texts = []
    for index in range(min(parser.num_errors, 3)):
        error = parser.get_error(index)
        texts.append(f"node {error.node_name() or '?'} ({error.node_operator() or '?'}): {error.desc()}")
    return "; ".join(texts)


def _logger(trt: Any, messages: list[str]) -> Any:
    """A logger that keeps errors for the message and passes warnings on."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the module is chosen at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(message.strip())

    return Logger()
