"""Backend: what building and opening engines asks of ONNX Runtime and of every TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dlv3deploy.core.engine import Batch, Engine
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.engines.manifest import Builder, Target
from dlv3deploy.engines.tensorrt_options import TensorRTOptions
from dlv3deploy.engines.timing import LayerTime

if TYPE_CHECKING:
    from onnx import ModelProto


class Backend(Protocol):
    """Compiles typed ONNX graphs of fixed size, for one image or an open batch, and runs what it compiled."""

    def require(self, types: Collection[str]) -> None:
        """Raise UserError where it cannot build here, with its options, a graph that has these types ("int8") besides FP32."""

    def build(self, model: bytes, engine: Path, where: str) -> None:
        """Compile `model` into the file `engine`. Raises UserError naming `where`."""

    def open(self, engine: Path, spec: ModelSpec) -> Engine:
        """The engine, ready to run. Raises UserError or CheckFailed when it cannot be loaded here."""

    def layer_times(self, engine: Path, spec: ModelSpec, batch: Batch, runs: int) -> list[LayerTime]:
        """What its layers take, over `runs` runs on one batch. Raises as `open` does."""

    def layer_precision(self, engine: Path, typed: Mapping[str, str]) -> Mapping[str, str]:
        """For every convolution the type that the compiled engine runs it in; `typed` where that cannot be read."""

    def fitted(self, graph: Callable[[], ModelProto]) -> TensorRTOptions:
        """The options that an engine of this graph, of fixed size, gets here, where this machine has a say in them."""

    def runs_here(self) -> bool:
        """Whether this machine can run what it builds."""

    def builder(self) -> Builder: ...

    def target(self) -> Target: ...
