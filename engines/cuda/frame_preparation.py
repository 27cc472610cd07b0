"""Frames into a network's input: colours, size and normalisation in one kernel, `frames.cu`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.preprocess import Geometry, geometry_of, mean_colour
from dlv3deploy.core.spec import InputSpec
from dlv3deploy.engines.cuda.device import Argument, Device, Exchange, Stream, address_of
from dlv3deploy.engines.cuda.port import THREADS, Port, blocks, integers
from dlv3deploy.engines.cuda.source import FRAMES

MOST_SHAPES = 4  # whose memory is kept, for each place in the batch
PIXELS = {"bgr": 0, "rgb": 1, "nv12": 2, "yuyv": 3}  # as the enumeration in the source


class FramePreparation:
    """Writes frames of any size into an engine's input: colour conversion, resize, normalisation, planes, in one kernel."""

    def __init__(self, device: Device, into: Port) -> None:
        self._device, self._into = device, into
        self._kernel = device.kernels(FRAMES)["prepare"]
        self._frames: dict[tuple[int, tuple[int, ...]], Exchange] = {}  # by place in the batch and shape, the last used last
        self._loaded: dict[int, Exchange] = {}

    def put(self, index: int, frame: NDArray[np.uint8], given: InputSpec, stream: Stream, pixels: str = "bgr") -> Geometry:
        """`load` and `queue`."""
        self.load(index, frame)
        return self.queue(index, given, stream, pixels)

    def gives_up(self, index: int, frame: NDArray[np.uint8]) -> bool:
        """Whether `load` is to give back memory that was used before."""
        return (index, frame.shape) not in self._frames and self._count(index) == MOST_SHAPES

    def _count(self, index: int) -> int:
        return sum(place == index for place, _ in self._frames)

    def exchange_of(self, index: int) -> Exchange:
        """The frame that was loaded for image `index`."""
        return self._loaded[index]

    def load(self, index: int, frame: NDArray[np.uint8]) -> None:
        """Copy image `index` of the batch to where `queue` sends it from.

        `frame` is H×W×3 of "bgr" or "rgb", H×W×2 of "yuyv", or H·3/2×W of "nv12", uint8; W, and the H of NV12, are even there.
        """
        if self.gives_up(index, frame):
            oldest = next(key for key in self._frames if key[0] == index)
            self._frames.pop(oldest).close()  # before another is asked for, which may fail
        key = index, frame.shape
        known = self._frames.pop(key, None) or self._device.exchange(frame.shape, np.dtype(np.uint8), is_read_once=True)
        self._frames[key] = self._loaded[index] = known
        np.copyto(known.values, frame)

    def queue(self, index: int, given: InputSpec, stream: Stream, pixels: str = "bgr") -> Geometry:
        """Queue what makes the network's input of image `index`. Returns where its pixels lie in the input."""
        exchange = self._loaded[index]
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
            *(address_of(exchange), *integers(PIXELS[pixels], height, width, math.prod(shape[1:]))),
            *(self._into.part(index), *integers(self._into.numbers, rows, columns)),
            *integers(*map(round, geometry.offset), *inner),
            *(np.float64(1 / (size / of_frame)) for size, of_frame in zip(inner, geometry.frame, strict=True)),
            *(*map(np.float32, fill), *scales, *shifts, *integers(given.colour_order == "rgb"), np.float32(self._into.step)),
        ]
        self._kernel(blocks(rows, columns), THREADS, arguments, stream)
        return geometry

    def close(self) -> None:
        for exchange in self._frames.values():
            exchange.close()
        self._frames.clear()
        self._loaded.clear()
