"""The device through cuda-python: wheels, no compiler; kernels are compiled by NVRTC."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.engines.cuda.device import Argument, Kernel, Size, Stream
from dlv3deploy.engines.cuda.nvrtc import compiled
from dlv3deploy.engines.cuda.source import Source
from dlv3deploy.engines.gpu import find_gpu

C_TYPES = {np.int32: ctypes.c_int32, np.float32: ctypes.c_float, np.float64: ctypes.c_double, np.uint64: ctypes.c_void_p}


def _cuda() -> tuple[Any, Any]:
    from cuda.bindings import driver, runtime

    return driver, runtime


def _checked(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call, or CheckFailed with the error's name."""
    code, *values = result
    if int(code) != 0:
        raise CheckFailed(f"CUDA call failed: {code.name}")
    return values[0] if values else None


class CudaPythonDevice:
    def __init__(self) -> None:
        _, runtime = _cuda()
        _checked(runtime.cudaSetDevice(0))
        gpu = find_gpu()
        self.shares_memory = gpu is not None and gpu.shares_memory
        self.capability = gpu.compute_capability if gpu else ""

    def stream(self) -> Stream:
        return _Stream()

    def memory(self, size: int) -> _Memory:
        return _Memory(size)

    def exchange(self, shape: tuple[int, ...], dtype: np.dtype[Any], is_read_once: bool = False) -> _Copied | _Mapped:
        return _Mapped(shape, dtype) if is_read_once and self.shares_memory else _Copied(shape, dtype)

    def kernels(self, source: Source) -> Mapping[str, Kernel]:
        driver, _ = _cuda()
        module = _checked(driver.cuModuleLoadData(compiled(source, self.capability)))
        return {name: _Kernel(_checked(driver.cuModuleGetFunction(module, name.encode()))) for name in source.kernels}


class _Stream:
    def __init__(self) -> None:
        self._stream = _checked(_cuda()[1].cudaStreamCreate())

    @property
    def handle(self) -> int:
        return int(self._stream)

    def capture(self, work: Callable[[], None]) -> _Graph:
        _, runtime = _cuda()
        _checked(runtime.cudaStreamBeginCapture(self._stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        try:
            work()
        except BaseException:
            with suppress(CheckFailed):  # of a capture that its work has broken
                _checked(runtime.cudaGraphDestroy(_checked(runtime.cudaStreamEndCapture(self._stream))))
            raise
        graph = _checked(runtime.cudaStreamEndCapture(self._stream))
        try:
            return _Graph(_checked(runtime.cudaGraphInstantiate(graph, 0)))
        finally:
            _checked(runtime.cudaGraphDestroy(graph))

    def synchronize(self) -> None:
        _checked(_cuda()[1].cudaStreamSynchronize(self._stream))

    def close(self) -> None:
        if self._stream is not None:
            _checked(_cuda()[1].cudaStreamDestroy(self._stream))
            self._stream = None


class _Graph:
    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def launch(self, stream: Stream) -> None:
        _checked(_cuda()[1].cudaGraphLaunch(self._graph, stream.handle))

    def close(self) -> None:
        if self._graph is not None:
            _checked(_cuda()[1].cudaGraphExecDestroy(self._graph))
            self._graph = None


class _Memory:
    def __init__(self, size: int) -> None:
        self.size = size
        self.address = int(_checked(_cuda()[1].cudaMalloc(size)))

    def close(self) -> None:
        if self.address:
            _checked(_cuda()[1].cudaFree(self.address))
            self.address = 0


class _Exchange:
    """Page-locked memory of the host, as an array."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.size = math.prod(shape) * dtype.itemsize
        _, runtime = _cuda()
        self._host = int(_checked(runtime.cudaHostAlloc(max(1, self.size), runtime.cudaHostAllocMapped)))
        whole = memoryview((ctypes.c_uint8 * self.size).from_address(self._host))
        self.values: NDArray[Any] = np.frombuffer(whole, dtype).reshape(shape)
        self.address = 0

    def close(self) -> None:
        """`values` may not be touched any more."""
        if self._host:
            _checked(_cuda()[1].cudaFreeHost(self._host))
            self._host = 0


class _Mapped(_Exchange):
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(shape, dtype)
        self.address = int(_checked(_cuda()[1].cudaHostGetDevicePointer(self._host, 0)))

    def send(self, stream: Stream) -> None:
        pass

    def fetch(self, stream: Stream) -> None:
        pass


class _Copied(_Exchange):
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(shape, dtype)
        try:
            self._memory = _Memory(max(1, self.size))
        except CheckFailed:
            super().close()
            raise
        self.address = self._memory.address

    def send(self, stream: Stream) -> None:
        _, runtime = _cuda()
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(runtime.cudaMemcpyAsync(self.address, self._host, self.size, kind, stream.handle))

    def fetch(self, stream: Stream) -> None:
        _, runtime = _cuda()
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(runtime.cudaMemcpyAsync(self._host, self.address, self.size, kind, stream.handle))

    def close(self) -> None:
        self._memory.close()
        super().close()


class _Kernel:
    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, blocks: Size, threads: Size, arguments: Sequence[Argument], stream: Stream) -> None:
        driver, runtime = _cuda()
        _checked(runtime.cudaSetDevice(0))  # makes the primary context this thread's
        values = tuple(argument.item() for argument in arguments)
        types = tuple(C_TYPES[type(argument)] for argument in arguments)
        _checked(driver.cuLaunchKernel(self._function, *blocks, *threads, 0, stream.handle, (values, types), 0))
