"""Running TensorRT and TensorRT-RTX engines. Needs a GPU; building does not (see `tensorrt_backend.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs, check_batch
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.frame_engine import OnDevice, Paint
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import InputSpec, ModelSpec
from dlv3deploy.engines.cuda.device import Device, open_device
from dlv3deploy.engines.cuda.frames import FramesOnDevice
from dlv3deploy.engines.cuda.port import Port
from dlv3deploy.engines.dialect import OPEN, Dialect, give_weights, load_dialect, runs_on, with_weights
from dlv3deploy.engines.gpu import find_gpu
from dlv3deploy.engines.plans.inspected import read_engine_information
from dlv3deploy.engines.plans.plan import Plan
from dlv3deploy.engines.tensorrt_options import TensorRTOptions
from dlv3deploy.engines.timing import WARM_UP_RUNS, LayerTime, medians, milliseconds

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
    if (context := _of_the_most(trt, engine)) is not None:
        inspector.execution_context = context
    return read_engine_information(inspector.get_engine_information(trt.LayerInformationFormat.JSON), loaded.name)


def _of_the_most(trt: Any, engine: Any) -> Any:
    """A context for the largest batch, by which an inspector knows sizes that an engine leaves open; None where it has none."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for name in names:
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT and OPEN in tuple(engine.get_tensor_shape(name)):
            context = engine.create_execution_context()
            _smallest, _best, largest = engine.get_tensor_profile_shape(name, 0)
            if context is not None and context.set_input_shape(name, largest):
                return context
    return None


def refitted(dialect: Dialect, path: Path, options: TensorRTOptions, model: bytes) -> bytes:
    """The engine with the weights of `model`. Raises UserError without its GPU, CheckFailed where they do not fit."""
    loaded = _load(dialect, path, options, None)
    trt = loaded.trt
    give_weights(trt, loaded.engine, trt.Logger(trt.Logger.ERROR), model)
    return with_weights(trt, loaded.engine)


class _Lane:
    """An execution context with buffers and a stream of its own; what is queued in several lanes overlaps on the device."""

    def __init__(self, loaded: _Loaded, device: Device, names: tuple[str, str], spec: ModelSpec) -> None:
        self._loaded, self._names = loaded, names
        self.context = loaded.engine.create_execution_context()
        if self.context is None:
            raise CheckFailed(f"{loaded.name} has no memory for another execution context")
        given, made = names
        self.is_open = OPEN in tuple(loaded.engine.get_tensor_shape(given))
        if self.is_open:
            _smallest, _best, largest = loaded.engine.get_tensor_profile_shape(given, 0)
            self._take(largest)
        with ExitStack() as opened:
            self.stream = device.stream()
            opened.callback(self.stream.close)
            self.given = self._port(device, given)
            opened.callback(self.given.exchange.close)
            self.made = self._port(device, made)
            opened.callback(self.made.exchange.close)
            self.frames = self._frames_on_device(device, spec)
            opened.pop_all()

    def _port(self, device: Device, name: str) -> Port:
        """Memory for as many images as the engine takes, which it reads from or writes to from now on."""
        kind = np.dtype(self._loaded.trt.nptype(self._loaded.engine.get_tensor_dtype(name)))
        port = Port(device.exchange(tuple(self.context.get_tensor_shape(name)), kind))
        self.context.set_tensor_address(name, port.exchange.address)
        return port

    def _frames_on_device(self, device: Device, spec: ModelSpec) -> FramesOnDevice | None:
        """None for outputs that are no scores, and where kernels cannot be compiled, which is said."""
        ports, name = (self.given, self.made), self._loaded.name
        if spec.output.kind == "mask" or any(port.exchange.values.dtype not in FLOATS for port in ports):
            return None
        if (found := self.made.shape[1]) != (count := len(spec.classes)):
            raise CheckFailed(f"{name} returned scores of {found} classes, the model has {count}")
        try:
            return FramesOnDevice(device, self.stream, ports, spec.output, name, self.execute, fixed=not self.is_open)
        except (UserError, CheckFailed) as error:
            say(f"frames are prepared and masks made on the processor, not by {name}: {error}")
            return None

    def resize(self, images: int) -> None:
        """For a batch of this many. Raises ValueError where it is too large."""
        if images > (most := self.given.shape[0]):
            raise ValueError(f"{self._loaded.name} takes {most} images at most, was given {images}")
        if self.is_open:
            self._take((images, *self.given.shape[1:]))

    def _take(self, shape: tuple[int, ...]) -> None:
        if not self.context.set_input_shape(self._names[0], tuple(shape)):
            raise CheckFailed(f"{self._loaded.name} does not take an input of {'×'.join(map(str, shape))}")

    def execute(self) -> None:
        if not self.context.execute_async_v3(self.stream.handle):
            raise CheckFailed(f"{self._loaded.name} failed to run; its log says why")

    def close(self) -> None:
        if self.frames is not None:
            self.frames.close()
        for port in (self.given, self.made):
            port.exchange.close()
        self.stream.close()


class TensorRTEngine(ClosingEngine):
    """A deserialised plan with its buffers on the device: one input and one output, of fixed shape but for an open batch."""

    def __init__(
        self, dialect: Dialect, path: Path, spec: ModelSpec, options: TensorRTOptions, weights: bytes | None = None
    ) -> None:
        self._loaded = _load(dialect, path, options, weights)
        trt, engine = self._loaded.trt, self._loaded.engine
        self.spec, self.name = spec, self._loaded.name
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = [engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names]
        self._names = names[is_input.index(True)], names[is_input.index(False)]
        batch, channels, height, width = tuple(engine.get_tensor_shape(self._names[0]))
        self.input_shape = (None if batch == OPEN else batch, channels, height, width)
        self._device = open_device()
        self._lanes = [self._lane()]
        self._turn = 0

    def _lane(self) -> _Lane:
        return _Lane(self._loaded, self._device, self._names, self.spec)

    @property
    def most_images(self) -> int | None:
        return self._lanes[0].given.shape[0]

    @property
    def takes_frames(self) -> bool:
        return self._lanes[0].frames is not None

    def infer(self, batch: Batch) -> Outputs:
        check_batch(self, batch)
        lane = self._lanes[0]
        lane.resize(len(batch))
        lane.stream.synchronize()
        np.copyto(lane.given.exchange.values[: len(batch)], batch, casting="same_kind")
        lane.given.exchange.send(lane.stream)
        try:
            lane.execute()
            lane.made.exchange.fetch(lane.stream)
        finally:
            lane.stream.synchronize()  # also of what was queued before it failed, which reads memory that is written to next
        values = lane.made.exchange.values[: len(batch)]
        return values.astype(np.float32) if values.dtype.kind == "f" else np.array(values)

    def network_ms(self, runs: int) -> list[float]:
        """Milliseconds of the network alone, on whatever its input holds: nothing is copied, prepared or read."""
        lane = self._lanes[0]

        def once() -> None:
            lane.execute()
            lane.stream.synchronize()

        return [milliseconds(once) for _ in range(WARM_UP_RUNS + runs)][WARM_UP_RUNS:]

    def overlap(self, batches: int) -> int:
        """Lanes are opened as far as memory goes; one where shapes are open, for which TensorRT 8 has one context a profile."""
        while len(self._lanes) < batches and not self._lanes[0].is_open:
            try:
                lane = self._lane()
            except CheckFailed as error:
                say(f"frames are worked on one after the other: {error}")
                break
            if lane.frames is None:  # which was said
                lane.close()
                break
            self._lanes.append(lane)
        return len(self._lanes)

    def queue_frames(self, frames: Sequence[Frame], given: InputSpec) -> int:
        self._turn = (self._turn + 1) % len(self._lanes)
        lane = self._lanes[self._turn]
        lane.resize(len(frames))
        _frames_of(lane).put(frames, given)
        return self._turn

    def wait(self, lane: int) -> None:
        self._lanes[lane].stream.synchronize()

    def mask(self, answer: OnDevice, geometry: Geometry) -> Mask:
        return _frames_of(self._lanes[answer.lane]).take(answer.index, geometry)[0]

    def painted(self, answer: OnDevice, geometry: Geometry, paint: Paint) -> tuple[Mask, Frame]:
        mask, picture = _frames_of(self._lanes[answer.lane]).take(answer.index, geometry, paint)
        assert picture is not None  # a paint was given
        return mask, picture

    def layer_times(self, batch: Batch, runs_wanted: int) -> list[LayerTime]:
        """What each layer takes by TensorRT's own profiler, which waits for every one and so slows the whole."""
        trt, runs = self._loaded.trt, list[list[tuple[str, str, float]]]()

        class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]  # the module is chosen at run time
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                runs[-1].append((layer_name, "", ms))

        profiler = Profiler()  # which the context does not keep alive
        self._lanes[0].context.profiler = profiler
        for _ in range(WARM_UP_RUNS + runs_wanted):
            runs.append([])
            self.infer(batch)
        return medians(runs[WARM_UP_RUNS:])

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()


def _frames_of(lane: _Lane) -> FramesOnDevice:
    assert lane.frames is not None  # `takes_frames` says so
    return lane.frames
