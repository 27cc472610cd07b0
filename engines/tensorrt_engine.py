"""Running TensorRT and TensorRT-RTX engines. Needs a GPU; building does not (see `tensorrt_backend.py`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs, check_batch
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.engines.cuda import DeviceBuffer, Stream
from dlv3deploy.engines.dialect import OPEN, Dialect, load_dialect, refit, runs_on
from dlv3deploy.engines.gpu import find_gpu
from dlv3deploy.engines.plans.inspected import read_engine_information
from dlv3deploy.engines.plans.plan import Plan
from dlv3deploy.engines.tensorrt_options import TensorRTOptions
from dlv3deploy.engines.timing import WARM_UP_RUNS, LayerTime, medians


@dataclass(frozen=True)
class _Loaded:
    """A deserialised engine, the bindings and the runtime that it lives by, and what both are called."""

    trt: Any
    runtime: Any
    engine: Any
    name: str


def _load(dialect: Dialect, path: Path, options: TensorRTOptions) -> _Loaded:
    gpu = find_gpu()
    if gpu is None:  # creating a Runtime without a driver can crash the process
        raise UserError(str(path), "runs on an NVIDIA GPU, and this machine has none", "use its ONNX file here")
    trt = load_dialect(dialect)
    if not runs_on(dialect, trt, gpu.compute_capability):
        here = f"compute capability {gpu.compute_capability}, this {gpu.name}'s"
        rule = f"{dialect.name} {trt.__version__} does not run on {here}"
        raise UserError(str(path), rule, "use --backend tensorrt or onnxruntime")
    name = f"{dialect.name} {trt.__version__}, {gpu.name}"
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    runtime.engine_host_code_allowed = options.version_compatible  # such an engine brings a runtime of its own version
    if options.dla_core is not None:
        runtime.DLA_core = options.dla_core
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise CheckFailed(f"{path} cannot be loaded by {name}; build it again on this machine")
    return _Loaded(trt, runtime, engine, name)


def inspected_plan(dialect: Dialect, path: Path, options: TensorRTOptions) -> Plan:
    """The kernels of an engine. Raises UserError without a GPU that runs it, CheckFailed where it tells nothing of them."""
    loaded = _load(dialect, path, options)
    trt, engine = loaded.trt, loaded.engine
    inspector = engine.create_engine_inspector()
    return read_engine_information(inspector.get_engine_information(trt.LayerInformationFormat.JSON), loaded.name)


def refitted(dialect: Dialect, path: Path, options: TensorRTOptions, model: bytes) -> bytes:
    """The engine with the weights of `model`. Raises UserError without its GPU, CheckFailed where they do not fit."""
    loaded = _load(dialect, path, options)
    trt = loaded.trt
    return refit(trt, loaded.engine, trt.Logger(trt.Logger.ERROR), model)


class TensorRTEngine(ClosingEngine):
    """A deserialised plan with its buffers on the device: one input and one output, of fixed shape but for an open batch."""

    def __init__(self, dialect: Dialect, path: Path, spec: ModelSpec, options: TensorRTOptions) -> None:
        loaded = _load(dialect, path, options)
        trt, runtime, engine = loaded.trt, loaded.runtime, loaded.engine
        self.spec, self.name = spec, loaded.name
        context = engine.create_execution_context()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = [engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names]
        self._input, self._output = names[is_input.index(True)], names[is_input.index(False)]
        shape = tuple(engine.get_tensor_shape(self._input))
        batch, channels, height, width = shape
        self.input_shape = (None if batch == OPEN else batch, channels, height, width)
        if OPEN in shape:
            _smallest, _best, shape = engine.get_tensor_profile_shape(self._input, 0)
            context.set_input_shape(self._input, shape)
        self._most: int = shape[0]
        self._output_shape = tuple(context.get_tensor_shape(self._output))
        self._input_type = np.dtype(trt.nptype(engine.get_tensor_dtype(self._input)))
        self._output_type = np.dtype(trt.nptype(engine.get_tensor_dtype(self._output)))
        self._trt, self._runtime, self._engine, self._context, self._stream = trt, runtime, engine, context, Stream()
        self._buffers = [
            DeviceBuffer(math.prod(shape) * self._input_type.itemsize),
            DeviceBuffer(math.prod(self._output_shape) * self._output_type.itemsize),
        ]
        for name, buffer in zip((self._input, self._output), self._buffers, strict=True):
            context.set_tensor_address(name, buffer.address)

    @property
    def most_images(self) -> int | None:
        return self._most

    def infer(self, batch: Batch) -> Outputs:
        check_batch(self, batch)
        count = len(batch)
        if count > self._most:
            raise ValueError(f"{self.name} takes {self._most} images at most, was given {count}")
        if self.input_shape[0] is None:
            self._context.set_input_shape(self._input, batch.shape)
        batch = np.ascontiguousarray(batch, self._input_type)
        self._buffers[0].upload(batch, self._stream)
        if not self._context.execute_async_v3(int(self._stream.handle)):
            raise CheckFailed(f"{self.name} failed to run; its log says why")
        values = self._buffers[1].download((count, *self._output_shape[1:]), self._output_type, self._stream)
        return values.astype(np.float32) if values.dtype.kind == "f" else values

    def layer_times(self, batch: Batch, runs_wanted: int) -> list[LayerTime]:
        """What each layer takes by TensorRT's own profiler, which waits for every one and so slows the whole."""
        trt, runs = self._trt, list[list[tuple[str, str, float]]]()

        class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]  # the module is chosen at run time
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                runs[-1].append((layer_name, "", ms))

        profiler = Profiler()  # which the context does not keep alive
        self._context.profiler = profiler
        for _ in range(WARM_UP_RUNS + runs_wanted):
            runs.append([])
            self.infer(batch)
        return medians(runs[WARM_UP_RUNS:])

    def close(self) -> None:
        for buffer in self._buffers:
            buffer.close()
        self._stream.close()
