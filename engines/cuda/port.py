"""What a network reads and writes on the device, as kernels are told of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlv3deploy.engines.cuda.device import Argument, Exchange, Size, address_of

NUMBERS = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int8): 2}  # as the enumerations in the sources
THREADS = (32, 8, 1)


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


def integers(*values: int) -> list[Argument]:
    return [np.int32(value) for value in values]


def blocks(height: int, width: int) -> Size:
    return -(-width // THREADS[0]), -(-height // THREADS[1]), 1
