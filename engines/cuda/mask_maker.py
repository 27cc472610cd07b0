"""Masks from a network's scores, and colours over the frame: `masks.cu`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from dlv3deploy.core.bilinear import axis_for
from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.frame_engine import Paint
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.engines.cuda.device import Argument, Device, Exchange, Kernel, Memory, Stream, address_of
from dlv3deploy.engines.cuda.port import THREADS, Port, blocks, integers
from dlv3deploy.engines.cuda.source import MASKS

M = TypeVar("M", bound=Memory)
MOST_GEOMETRIES = 8  # whose tables are kept


@dataclass(frozen=True)
class Painting:
    """Colours, and the frame on the device that they go over, H×W×3."""

    paint: Paint
    frame: Exchange


class MaskMaker:
    """Masks of any size from an engine's scores: bilinear upsampling and argmax, equal to the CPU's in every pixel."""

    def __init__(self, device: Device, scores: Port, output: OutputSpec, name: str) -> None:
        self._device, self._scores, self._output, self._name = device, scores, output, name
        self._kernels: Mapping[str, Kernel] = device.kernels(MASKS)
        positions = math.prod(scores.shape[2:])
        with ExitStack() as opened:
            self._leading, self._lead, self._largest = (
                self._kept(opened, device.memory(positions * size)) for size in (1, 4, 4)
            )
            self._broken = self._kept(opened, device.exchange((1,), np.dtype(np.int32)))
            opened.pop_all()
        self._places: dict[Geometry, _Place] = {}
        self._painted: tuple[Paint, Exchange] | None = None

    @staticmethod
    def _kept(opened: ExitStack, memory: M) -> M:
        """Closed when what comes behind it cannot be had."""
        opened.callback(memory.close)
        return memory

    def take(self, index: int, geometry: Geometry, stream: Stream) -> Mask:
        """The mask H×W, uint8, of image `index` of the batch, for a frame of this geometry; waits for the stream.

        Raises CheckFailed when scores are not finite.
        """
        self.ready(geometry, stream)
        self.queue(index, geometry, stream)
        return self.collect(geometry, stream)

    def gives_up(self, geometry: Geometry, paint: Paint | None = None) -> bool:
        """Whether `ready` is to give back memory that was used before."""
        has_another = paint is not None and self._painted is not None and paint is not self._painted[0]
        return self._is_full(geometry) or has_another

    def _is_full(self, geometry: Geometry) -> bool:
        return geometry not in self._places and len(self._places) == MOST_GEOMETRIES

    def ready(self, geometry: Geometry, stream: Stream, paint: Paint | None = None) -> None:
        """Make room for masks of this geometry, for pictures too where there is a paint, and nothing of one before broken."""
        if self._is_full(geometry):
            self._places.pop(next(iter(self._places))).close()
        if geometry not in self._places:
            self._places[geometry] = _Place.of(self._device, geometry, self._scores.shape[2:], self._output, stream)
        if paint is not None:
            self._places[geometry].make_picture(self._device)
            self._send(paint, stream)
        self._broken.values[0] = 0

    def _send(self, paint: Paint, stream: Stream) -> None:
        if self._painted is not None and self._painted[0] is not paint:
            self._painted[1].close()
            self._painted = None
        if self._painted is None:
            self._painted = paint, self._device.exchange(paint.table.shape, paint.table.dtype)
            np.copyto(self._painted[1].values, paint.table)
            self._painted[1].send(stream)

    def queue(self, index: int, geometry: Geometry, stream: Stream, painting: Painting | None = None) -> None:
        """Queue what makes the mask of image `index`, and its picture."""
        place = self._places[geometry]
        height, width = self._scores.shape[2:]
        scores = [self._scores.part(index), *integers(self._scores.numbers, self._scores.shape[1], height, width)]
        ranks = [address_of(memory) for memory in (self._leading, self._lead, self._largest)]
        self._broken.send(stream)
        self._kernels["rank"](blocks(height, width), THREADS, [*scores, *ranks, address_of(self._broken)], stream)
        into = [address_of(place.mask), *integers(*geometry.frame)]
        over: list[Argument] = [np.uint64(0), np.uint64(0), np.float32(0), np.uint64(0)]
        if painting is not None and self._painted is not None and place.picture is not None:
            opacity = np.float32(painting.paint.opacity)
            over = [address_of(painting.frame), address_of(self._painted[1]), opacity, address_of(place.picture)]
        arguments = [*scores, *ranks, *map(address_of, place.tables), *into, *over]
        self._kernels["label"](blocks(*geometry.frame), THREADS, arguments, stream)
        place.mask.fetch(stream)
        if painting is not None and place.picture is not None:
            place.picture.fetch(stream)
        self._broken.fetch(stream)

    def collect(self, geometry: Geometry, stream: Stream) -> Mask:
        """The mask that was queued last; raises as `take` does."""
        stream.synchronize()
        if self._broken.values[0]:
            raise CheckFailed(f"{self._name} returned scores that are not finite; the weights or the precision are broken")
        return np.array(self._places[geometry].mask.values)

    def picture(self, geometry: Geometry) -> Frame:
        """H×W×3 BGR, behind `collect`."""
        picture = self._places[geometry].picture
        assert picture is not None  # `ready` made it
        return np.array(picture.values)

    def close(self) -> None:
        for place in self._places.values():
            place.close()
        self._places.clear()
        if self._painted is not None:
            self._painted[1].close()
            self._painted = None
        for memory in (self._leading, self._lead, self._largest, self._broken):
            memory.close()


@dataclass
class _Place:
    """A frame's mask and picture, and the tables that say which scores its rows and columns read: low, high, weight of each."""

    mask: Exchange
    tables: tuple[Exchange, ...]
    picture: Exchange | None = None

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

    def make_picture(self, device: Device) -> None:
        if self.picture is None:
            self.picture = device.exchange((*self.mask.values.shape, 3), np.dtype(np.uint8), is_read_once=True)

    def close(self) -> None:
        for exchange in (self.mask, *self.tables, *([self.picture] if self.picture else [])):
            exchange.close()
