"""The device through PyCUDA, which Jetson users have; kernels are compiled by the toolkit's nvcc and kept by PyCUDA."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.engines.cuda.device import Argument, Kernel, Size, Stream
from dlv3deploy.engines.cuda.source import OPTIONS, Source
from dlv3deploy.engines.gpu import find_gpu


class PyCudaDevice:
    def __init__(self) -> None:
        import pycuda.driver as cuda

        with _named():
            cuda.init()
            self._context = cuda.Device(0).retain_primary_context()
        gpu = find_gpu()
        self.shares_memory = gpu is not None and gpu.shares_memory

    @contextmanager
    def current(self) -> Iterator[Any]:
        """The primary context for calls of this thread, and PyCUDA's names of errors."""
        import pycuda.driver as cuda

        with _named():
            self._context.push()
            try:
                yield cuda
            finally:
                cuda.Context.pop()

    def stream(self) -> Stream:
        return _Stream(self)

    def memory(self, size: int) -> _Memory:
        return _Memory(self, size)

    def exchange(self, shape: tuple[int, ...], dtype: np.dtype[Any], is_read_once: bool = False) -> _Exchange:
        return _Exchange(self, shape, dtype, is_read_once and self.shares_memory)

    def kernels(self, source: Source) -> Mapping[str, Kernel]:
        from pycuda.compiler import SourceModule

        with self.current():
            try:
                module = SourceModule(source.text, options=list(OPTIONS), no_extern_c=True)
            except OSError as error:  # nvcc is not there
                raise UserError(source.name, f"is compiled by nvcc, which cannot be run ({error})", "add it to PATH") from error
            return {name: _Kernel(self, module.get_function(name)) for name in source.kernels}


@contextmanager
def _named() -> Iterator[None]:
    import pycuda.driver as cuda

    try:
        yield
    except cuda.Error as error:
        raise CheckFailed(f"CUDA call failed: {error}") from error


class _Stream:
    def __init__(self, device: PyCudaDevice) -> None:
        self._device = device
        with device.current() as cuda:
            self.queue = cuda.Stream()

    @property
    def handle(self) -> int:
        return int(self.queue.handle)

    def capture(self, work: Callable[[], None]) -> None:
        """PyCUDA has no graphs."""

    def synchronize(self) -> None:
        with self._device.current():
            self.queue.synchronize()

    def close(self) -> None:
        with self._device.current():  # which PyCUDA frees it in
            self.queue = None


def _queue(stream: Stream) -> Any:
    assert isinstance(stream, _Stream)  # all of a device's streams are
    return stream.queue


class _Memory:
    def __init__(self, device: PyCudaDevice, size: int) -> None:
        self.size, self._device = size, device
        with device.current() as cuda:
            self.allocation = cuda.mem_alloc(max(1, size))
        self.address = int(self.allocation)

    def close(self) -> None:
        if self.address:
            with self._device.current():
                self.allocation.free()
            self.address = 0


class _Exchange:
    def __init__(self, device: PyCudaDevice, shape: tuple[int, ...], dtype: np.dtype[Any], is_mapped: bool) -> None:
        self.size, self._device = math.prod(shape) * dtype.itemsize, device
        with device.current() as cuda:
            self.values: NDArray[Any] = cuda.pagelocked_empty(shape, dtype, mem_flags=cuda.host_alloc_flags.DEVICEMAP)
        self._memory = None if is_mapped else _Memory(device, self.size)
        with device.current():
            self.address = self._memory.address if self._memory else int(self.values.base.get_device_pointer())

    def send(self, stream: Stream) -> None:
        if self._memory:
            with self._device.current() as cuda:
                cuda.memcpy_htod_async(self.address, self.values, _queue(stream))

    def fetch(self, stream: Stream) -> None:
        if self._memory:
            with self._device.current() as cuda:
                cuda.memcpy_dtoh_async(self.values, self.address, _queue(stream))

    def close(self) -> None:
        """`values` may not be touched any more."""
        if self._memory:
            self._memory.close()
        with self._device.current():
            self.values = np.empty(0, self.values.dtype)  # its memory goes with it


class _Kernel:
    def __init__(self, device: PyCudaDevice, function: Any) -> None:
        self._device, self._function = device, function

    def __call__(self, blocks: Size, threads: Size, arguments: Sequence[Argument], stream: Stream) -> None:
        with self._device.current():
            self._function(*arguments, grid=blocks, block=threads, stream=_queue(stream))
