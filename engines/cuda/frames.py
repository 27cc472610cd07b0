"""Frames into an engine's input and masks out of its scores, without leaving the device in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.bilinear import axis_for
from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.preprocess import Geometry, geometry_of, mean_colour
from dlv3deploy.core.spec import InputSpec, OutputSpec
from dlv3deploy.engines.cuda.device import Argument, Device, Exchange, Kernel, Size, Stream, address_of
from dlv3deploy.engines.cuda.repeated import Repeated
from dlv3deploy.engines.cuda.source import FRAMES, MASKS

# As the enumerations in the sources have them.
PIXELS = {"bgr": 0, "rgb": 1, "nv12": 2, "yuyv": 3}
NUMBERS = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int8): 2}
THREADS = (32, 8, 1)
MOST_GEOMETRIES = 8  # whose tables are kept


@dataclass(frozen=True)
class Port:
    """An engine's input N×3×height×width or its scores N×C×h×w; INT8 values count in `step`."""

    exchange: Exchange
    step: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.exchange.values.shape

    @property
    def numbers(self) -> int:
        return NUMBERS[self.exchange.values.dtype]

    def part(self, index: int) -> np.uint64:
        """Where one image's values begin."""
        return address_of(self.exchange, index * self.exchange.values[0].nbytes)


class FramesOnDevice:
    """Both ways of one execution context on a stream of its own: frames in, the network, masks out.

    `execute` queues the network on the stream, from `given` to `scores`; where their shapes are `fixed`, all that is queued for
    frames of known sizes is repeated as a graph. Nothing waits for the device but `take` and `put`, the latter for the batch
    before.
    """

    def __init__(
        self,
        device: Device,
        stream: Stream,
        ports: tuple[Port, Port],
        output: OutputSpec,
        name: str,
        execute: Callable[[], None],
        *,
        fixed: bool,
    ) -> None:
        given, scores = ports
        self._stream, self._execute, self._fixed = stream, execute, fixed
        self._repeated = Repeated(stream, name)
        self._frames = FramePreparation(device, given)
        self._masks = MaskMaker(device, scores, output, name)

    def put(self, frames: Sequence[Frame], given: InputSpec) -> None:
        """Queue a batch of H×W×3 BGR frames, which are copied before this returns, and the network behind it."""
        self._stream.synchronize()  # the batch before has been read
        if any(self._frames.gives_up(index, frame) for index, frame in enumerate(frames)):
            self._repeated.forget()
        for index, frame in enumerate(frames):
            self._frames.load(index, frame)

        def work() -> None:
            for index in range(len(frames)):
                self._frames.queue(index, given, self._stream)
            self._execute()

        if self._fixed:
            self._repeated.queue((given, tuple(frame.shape for frame in frames)), work)
        else:
            work()

    def take(self, index: int, geometry: Geometry) -> Mask:
        """As `MaskMaker.take` does."""
        if self._masks.gives_up(geometry):
            self._repeated.forget()
        self._masks.ready(geometry, self._stream)
        self._repeated.queue((index, geometry), lambda: self._masks.queue(index, geometry, self._stream))
        return self._masks.collect(geometry, self._stream)

    def wait(self) -> None:
        self._stream.synchronize()

    def close(self) -> None:
        self._repeated.forget()
        self._frames.close()
        self._masks.close()


class FramePreparation:
    """Writes frames of any size into an engine's input: colour conversion, resize, normalisation, planes, in one kernel."""

    def __init__(self, device: Device, into: Port) -> None:
        self._device, self._into = device, into
        self._kernel = device.kernels(FRAMES)["prepare"]
        self._frames: dict[int, Exchange] = {}  # by place in the batch

    def put(self, index: int, frame: NDArray[np.uint8], given: InputSpec, stream: Stream, pixels: str = "bgr") -> Geometry:
        """`load` and `queue`."""
        self.load(index, frame)
        return self.queue(index, given, stream, pixels)

    def gives_up(self, index: int, frame: NDArray[np.uint8]) -> bool:
        """Whether `load` is to give back memory that was used before."""
        return index in self._frames and self._frames[index].values.shape != frame.shape

    def load(self, index: int, frame: NDArray[np.uint8]) -> None:
        """Copy image `index` of the batch to where `queue` sends it from.

        `frame` is H×W×3 of "bgr" or "rgb", H×W×2 of "yuyv", or H·3/2×W of "nv12", uint8; W, and the H of NV12, are even there.
        """
        if self.gives_up(index, frame):
            self._frames.pop(index).close()  # before another is asked for, which may fail
        if index not in self._frames:
            self._frames[index] = self._device.exchange(frame.shape, np.dtype(np.uint8), is_read_once=True)
        np.copyto(self._frames[index].values, frame)

    def queue(self, index: int, given: InputSpec, stream: Stream, pixels: str = "bgr") -> Geometry:
        """Queue what makes the network's input of image `index`. Returns where its pixels lie in the input."""
        exchange = self._frames[index]
        shape = exchange.values.shape
        height, width = shape[0] * 2 // 3 if pixels == "nv12" else shape[0], shape[1]
        exchange.send(stream)
        geometry = geometry_of(height, width, given)
        rows, columns = geometry.input
        inner = [max(1, round(size * scale)) for size, scale in zip(geometry.frame, geometry.scale, strict=True)]
        fill = mean_colour(given)[::-1] if given.colour_order == "rgb" else mean_colour(given)
        scales = [np.float32(1 / deviation) for deviation in given.std]
        shifts = [np.float32(mean * scale) for mean, scale in zip(given.mean, scales, strict=True)]
        arguments: list[Argument] = [
            *(address_of(exchange), *_integers(PIXELS[pixels], height, width, math.prod(shape[1:]))),
            *(self._into.part(index), *_integers(self._into.numbers, rows, columns)),
            *_integers(*map(round, geometry.offset), *inner),
            *(np.float64(1 / (size / of_frame)) for size, of_frame in zip(inner, geometry.frame, strict=True)),
            *(*map(np.float32, fill), *scales, *shifts, *_integers(given.colour_order == "rgb"), np.float32(self._into.step)),
        ]
        self._kernel(_blocks(rows, columns), THREADS, arguments, stream)
        return geometry

    def close(self) -> None:
        for exchange in self._frames.values():
            exchange.close()
        self._frames.clear()


class MaskMaker:
    """Masks of any size from an engine's scores: bilinear upsampling and argmax, equal to the CPU's in every pixel."""

    def __init__(self, device: Device, scores: Port, output: OutputSpec, name: str) -> None:
        self._device, self._scores, self._output, self._name = device, scores, output, name
        self._kernels: Mapping[str, Kernel] = device.kernels(MASKS)
        positions = math.prod(scores.shape[2:])
        self._leading, self._lead, self._largest = (device.memory(positions * size) for size in (1, 4, 4))
        self._broken = device.exchange((1,), np.dtype(np.int32))
        self._places: dict[Geometry, _Place] = {}

    def take(self, index: int, geometry: Geometry, stream: Stream) -> Mask:
        """The mask H×W, uint8, of image `index` of the batch, for a frame of this geometry; waits for the stream.

        Raises CheckFailed when scores are not finite.
        """
        self.ready(geometry, stream)
        self.queue(index, geometry, stream)
        return self.collect(geometry, stream)

    def gives_up(self, geometry: Geometry) -> bool:
        """Whether `ready` is to give back memory that was used before."""
        return geometry not in self._places and len(self._places) == MOST_GEOMETRIES

    def ready(self, geometry: Geometry, stream: Stream) -> None:
        """Make room for masks of this geometry, and nothing of one before broken."""
        if self.gives_up(geometry):
            self._places.pop(next(iter(self._places))).close()
        if geometry not in self._places:
            self._places[geometry] = _Place.of(self._device, geometry, self._scores.shape[2:], self._output, stream)
        self._broken.values[0] = 0

    def queue(self, index: int, geometry: Geometry, stream: Stream) -> None:
        """Queue what makes the mask of image `index`."""
        place = self._places[geometry]
        height, width = self._scores.shape[2:]
        scores = [self._scores.part(index), *_integers(self._scores.numbers, self._scores.shape[1], height, width)]
        ranks = [address_of(memory) for memory in (self._leading, self._lead, self._largest)]
        self._broken.send(stream)
        self._kernels["rank"](_blocks(height, width), THREADS, [*scores, *ranks, address_of(self._broken)], stream)
        into = [address_of(place.mask), *_integers(*geometry.frame)]
        arguments = [*scores, *ranks, *map(address_of, place.tables), *into]
        self._kernels["label"](_blocks(*geometry.frame), THREADS, arguments, stream)
        place.mask.fetch(stream)
        self._broken.fetch(stream)

    def collect(self, geometry: Geometry, stream: Stream) -> Mask:
        """The mask that was queued last; raises as `take` does."""
        stream.synchronize()
        if self._broken.values[0]:
            raise CheckFailed(f"{self._name} returned scores that are not finite; the weights or the precision are broken")
        return np.array(self._places[geometry].mask.values)

    def close(self) -> None:
        for place in self._places.values():
            place.close()
        self._places.clear()
        for memory in (self._leading, self._lead, self._largest, self._broken):
            memory.close()


@dataclass(frozen=True)
class _Place:
    """A frame's mask, and the tables that say which scores its rows and columns read: low, high, weight of each."""

    mask: Exchange
    tables: tuple[Exchange, ...]

    @classmethod
    def of(cls, device: Device, geometry: Geometry, scores: tuple[int, ...], output: OutputSpec, stream: Stream) -> _Place:
        with ExitStack() as opened:

            def exchange(shape: tuple[int, ...], dtype: np.dtype[Any], is_read_once: bool = False) -> Exchange:
                made = device.exchange(shape, dtype, is_read_once)
                opened.callback(made.close)
                return made

            tables = []
            for axis in (0, 1):
                reads = axis_for(geometry, axis, scores[axis], output)
                for values in (reads.low.astype(np.int32), reads.high.astype(np.int32), reads.weight):
                    tables.append(exchange(values.shape, values.dtype))
                    np.copyto(tables[-1].values, values)
                    tables[-1].send(stream)
            place = cls(exchange(geometry.frame, np.dtype(np.uint8), is_read_once=True), tuple(tables))
            opened.pop_all()
        return place

    def close(self) -> None:
        for exchange in (self.mask, *self.tables):
            exchange.close()


def _integers(*values: int) -> list[Argument]:
    return [np.int32(value) for value in values]


def _blocks(height: int, width: int) -> Size:
    return -(-width // THREADS[0]), -(-height // THREADS[1]), 1
