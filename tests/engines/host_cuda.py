"""A device that is this processor: the kernels' own sources compiled by g++, run thread after thread.

It stands in for a GPU, which most machines that run tests lack. What it cannot show is CUDA itself: `test_cuda.py` has that, as
far as it goes on a machine without one, and `test_kernels.py` runs on a real one too (marked `gpu`).
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.engines.cuda.device import Argument, Size
from dlv3deploy.engines.cuda.source import Source

SHIM = """
#include <math.h>
#include <stddef.h>
#define __global__
#define __device__
struct Size { int x, y, z; };
static thread_local Size blockIdx, blockDim, threadIdx;
"""
RUN = """
extern "C" void run_{name}(const int* blocks, const int* threads, {parameters})
{{
    blockDim = {{threads[0], threads[1], threads[2]}};
    for (blockIdx.y = 0; blockIdx.y < blocks[1]; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks[0]; ++blockIdx.x)
            for (threadIdx.y = 0; threadIdx.y < threads[1]; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < threads[0]; ++threadIdx.x)
                    {name}({arguments});
}}
"""
OPTIONS = ("-O2", "-shared", "-fPIC", "-ffp-contract=off", "-std=c++17", "-Wall", "-Wextra", "-Werror")
C_TYPES = {np.int32: ctypes.c_int32, np.float32: ctypes.c_float, np.float64: ctypes.c_double, np.uint64: ctypes.c_void_p}


def kernels_of(text: str, kernels: Sequence[str], folder: Path) -> Mapping[str, Any]:
    """The kernels of a source, whose parameters are read from it."""
    whole = SHIM + text
    for name in kernels:
        (parameters,) = re.findall(rf"__global__ void {name}\(([^)]*)\)", text)
        names = [re.split(r"[\s*]+", parameter.strip())[-1] for parameter in parameters.split(",")]
        whole += RUN.format(name=name, parameters=parameters.strip(), arguments=", ".join(names))
    name = hashlib.sha256(whole.encode()).hexdigest()[:16]  # a library of one name is loaded once
    source, library = folder / f"{name}.cpp", folder / f"{name}.so"
    source.write_text(whole)
    subprocess.run(["g++", *OPTIONS, str(source), "-o", str(library)], check=True)
    found = ctypes.CDLL(str(library))
    return {name: partial(_run, getattr(found, f"run_{name}")) for name in kernels}


class HostMemory:
    def __init__(self, size: int) -> None:
        self.size, self.bytes = size, np.full(size, 0xA5, np.uint8)  # device memory begins with anything
        self.address = self.bytes.ctypes.data
        self.is_open = True

    def close(self) -> None:
        self.is_open = False


class HostStream:
    """Nothing is done before `synchronize`, so that whoever reads too early, or writes over what is still to be read, shows."""

    by_handle: ClassVar[dict[int, HostStream]] = {}

    def __init__(self) -> None:
        self.is_open, self.handle = True, len(self.by_handle) + 1
        self.by_handle[self.handle] = self
        self._queued: list[Callable[[], None]] = []
        self._captured: list[Callable[[], None]] | None = None
        self.captures = True  # False: a library of the network's cannot be captured

    def queue(self, work: Callable[[], None]) -> None:
        assert self.is_open
        (self._queued if self._captured is None else self._captured).append(work)

    def capture(self, work: Callable[[], None]) -> HostGraph:
        if not self.captures:
            raise CheckFailed("CUDA call failed: cudaErrorStreamCaptureUnsupported")
        self._captured = []
        try:
            work()
            return HostGraph(self._captured)
        finally:
            self._captured = None

    def synchronize(self) -> None:
        assert self._captured is None, "a capture cannot be waited for"
        queued, self._queued = self._queued, []
        for work in queued:
            work()

    def close(self) -> None:
        self.is_open = False


class HostGraph:
    launched = 0

    def __init__(self, works: list[Callable[[], None]]) -> None:
        self.works, self.is_open = works, True

    def launch(self, stream: HostStream) -> None:
        assert self.is_open
        HostGraph.launched += 1
        for work in self.works:
            stream.queue(work)

    def close(self) -> None:
        self.is_open = False


class HostExchange(HostMemory):
    """Two memories, so that a forgotten `send` or `fetch` shows; one where the device shares memory."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], is_mapped: bool) -> None:
        super().__init__(math.prod(shape) * dtype.itemsize)
        own = self.bytes.view(dtype).reshape(shape)
        self.values: NDArray[Any] = own if is_mapped else np.zeros(shape, dtype)

    def send(self, stream: HostStream) -> None:
        stream.queue(lambda: self._copy(self._own(), self.values))

    def fetch(self, stream: HostStream) -> None:
        stream.queue(lambda: self._copy(self.values, self._own()))

    def _own(self) -> NDArray[Any]:
        return self.bytes.view(self.values.dtype).reshape(self.values.shape)

    def _copy(self, into: NDArray[Any], values: NDArray[Any]) -> None:
        assert self.is_open, "memory was given back that is still in use"
        np.copyto(into, values)


class HostDevice:
    """`made` holds everything that was asked for, so that a test can see it closed."""

    def __init__(self, folder: Path, shares_memory: bool = False) -> None:
        self.folder, self.shares_memory = folder, shares_memory
        self.made: list[HostMemory | HostStream] = []

    def stream(self) -> HostStream:
        self.made.append(HostStream())
        return self.made[-1]  # type: ignore[return-value]  # it was just put there

    def memory(self, size: int) -> HostMemory:
        self.made.append(HostMemory(size))
        return self.made[-1]  # type: ignore[return-value]  # it was just put there

    def exchange(self, shape: tuple[int, ...], dtype: np.dtype[Any], is_read_once: bool = False) -> HostExchange:
        self.made.append(HostExchange(shape, dtype, is_read_once and self.shares_memory))
        return self.made[-1]  # type: ignore[return-value]  # it was just put there

    def kernels(self, source: Source) -> Mapping[str, Any]:
        return kernels_of(source.text, source.kernels, self.folder)


def _run(function: Any, blocks: Size, threads: Size, arguments: Sequence[Argument], stream: HostStream) -> None:
    stream.queue(partial(_run_now, function, blocks, threads, arguments))


def _run_now(function: Any, blocks: Size, threads: Size, arguments: Sequence[Argument]) -> None:
    sizes = [(ctypes.c_int * 3)(*size) for size in (blocks, threads)]
    function(*sizes, *(C_TYPES[type(argument)](argument.item()) for argument in arguments))
