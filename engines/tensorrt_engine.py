"""Running TensorRT and TensorRT-RTX engines. Needs a GPU; building does not (see `tensorrt_backend.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs, check_batch
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.frame_engine import OnDevice
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import InputSpec, ModelSpec
from dlv3deploy.engines.cuda.device import open_device
from dlv3deploy.engines.cuda.frames import FramesOnDevice, Port
from dlv3deploy.engines.dialect import OPEN, Dialect, give_weights, load_dialect, runs_on, with_weights
from dlv3deploy.engines.gpu import find_gpu
from dlv3deploy.engines.plans.inspected import read_engine_information
from dlv3deploy.engines.plans.plan import Plan
from dlv3deploy.engines.tensorrt_options import TensorRTOptions
from dlv3deploy.engines.timing import WARM_UP_RUNS, LayerTime, medians

FLOATS = (np.float32, np.float16)  # what the kernels for frames and masks are given by an engine


@dataclass(frozen=True)
class _Loaded:
    """A deserialised engine, the bindings and the runtime that it lives by, and what both are called."""

    trt: Any
    runtime: Any
    engine: Any
    name: str


def _load(dialect: Dialect, path: Path, options: TensorRTOptions, weights: bytes | None) -> _Loaded:
    """`weights` is the graph that a stripped engine takes them from."""
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
    if weights is not None:
        _give(trt, engine, path, weights)
    return _Loaded(trt, runtime, engine, name)


def _give(trt: Any, engine: Any, path: Path, weights: bytes) -> None:
    try:
        give_weights(trt, engine, trt.Logger(trt.Logger.ERROR), weights)
    except CheckFailed as error:
        raise CheckFailed(f"{path} does not take the weights of its ONNX file ({error}); build it again here") from error


def inspected_plan(dialect: Dialect, path: Path, options: TensorRTOptions) -> Plan:
    """The kernels of an engine. Raises UserError without a GPU that runs it, CheckFailed where it tells nothing of them."""
    loaded = _load(dialect, path, options, None)
    trt, engine = loaded.trt, loaded.engine
    inspector = engine.create_engine_inspector()
    return read_engine_information(inspector.get_engine_information(trt.LayerInformationFormat.JSON), loaded.name)


def refitted(dialect: Dialect, path: Path, options: TensorRTOptions, model: bytes) -> bytes:
    """The engine with the weights of `model`. Raises UserError without its GPU, CheckFailed where they do not fit."""
    loaded = _load(dialect, path, options, None)
    trt = loaded.trt
    give_weights(trt, loaded.engine, trt.Logger(trt.Logger.ERROR), model)
    return with_weights(trt, loaded.engine)


class TensorRTEngine(ClosingEngine):
    """A deserialised plan with its buffers on the device: one input and one output, of fixed shape but for an open batch."""

    def __init__(
        self, dialect: Dialect, path: Path, spec: ModelSpec, options: TensorRTOptions, weights: bytes | None = None
    ) -> None:
        loaded = _load(dialect, path, options, weights)
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
        self._trt, self._runtime, self._engine, self._context = trt, runtime, engine, context
        self._device = open_device()
        self._stream = self._device.stream()
        self._ports = {name: self._port(name) for name in (self._input, self._output)}
        self._frames = self._frames_on_device()

    def _port(self, name: str) -> Port:
        """Memory for as many images as the engine takes, which it reads from or writes to from now on."""
        shape, kind = (
            tuple(self._context.get_tensor_shape(name)),
            np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))),
        )
        port = Port(self._device.exchange(shape, kind))
        self._context.set_tensor_address(name, port.exchange.address)
        return port

    def _frames_on_device(self) -> FramesOnDevice | None:
        """None for outputs that are no scores, and where kernels cannot be compiled, which is said."""
        ports = self._ports[self._input], self._ports[self._output]
        if self.spec.output.kind == "mask" or any(port.exchange.values.dtype not in FLOATS for port in ports):
            return None
        if (found := ports[1].shape[1]) != (count := len(self.spec.classes)):
            raise CheckFailed(f"{self.name} returned scores of {found} classes, the model has {count}")
        try:
            return FramesOnDevice(self._device, self._stream, *ports, self.spec.output, self.name)
        except (UserError, CheckFailed) as error:
            say(f"frames are prepared and masks made on the processor, not by {self.name}: {error}")
            return None

    @property
    def most_images(self) -> int | None:
        return self._most

    @property
    def takes_frames(self) -> bool:
        return self._frames is not None

    def infer(self, batch: Batch) -> Outputs:
        check_batch(self, batch)
        self._resize(len(batch))
        taken, made = self._ports[self._input], self._ports[self._output]
        np.copyto(taken.exchange.values[: len(batch)], batch, casting="same_kind")
        taken.exchange.send(self._stream)
        self._execute()
        made.exchange.fetch(self._stream)
        self._stream.synchronize()
        values = made.exchange.values[: len(batch)]
        return values.astype(np.float32) if values.dtype.kind == "f" else np.array(values)

    def infer_frames(self, frames: Sequence[Frame], given: InputSpec) -> None:
        assert self._frames is not None  # `takes_frames` says so
        self._resize(len(frames))
        for index, frame in enumerate(frames):
            self._frames.put(index, frame, given)
        self._execute()
        self._stream.synchronize()

    def mask(self, answer: OnDevice, geometry: Geometry) -> Mask:
        assert self._frames is not None  # which that answer comes from
        return self._frames.take(answer.index, geometry)

    def _resize(self, images: int) -> None:
        """For a batch of this many. Raises ValueError where it is too large."""
        if images > self._most:
            raise ValueError(f"{self.name} takes {self._most} images at most, was given {images}")
        if self.input_shape[0] is None:
            self._context.set_input_shape(self._input, (images, *self._ports[self._input].shape[1:]))

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            self._stream.synchronize()  # what was queued before reads memory that the next batch is written to
            raise CheckFailed(f"{self.name} failed to run; its log says why")

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
        if self._frames is not None:
            self._frames.close()
        for port in self._ports.values():
            port.exchange.close()
        self._stream.close()
