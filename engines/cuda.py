"""Device memory and streams through cuda-python, in the few calls that an engine needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import CheckFailed, UserError

INSTALL = "install dlv3deploy[cuda]"


def _runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise UserError("cuda-python", "is not installed", INSTALL) from error
    return runtime


def _checked(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call, or CheckFailed with the error's name."""
    code, *values = result
    if int(code) != 0:
        raise CheckFailed(f"CUDA call failed: {code.name}")
    return values[0] if values else None


class Stream:
    """A CUDA stream; `synchronize` waits for everything queued on it."""

    def __init__(self) -> None:
        self.handle = _checked(_runtime().cudaStreamCreate())

    def synchronize(self) -> None:
        _checked(_runtime().cudaStreamSynchronize(self.handle))

    def close(self) -> None:
        if self.handle is not None:
            _checked(_runtime().cudaStreamDestroy(self.handle))
            self.handle = None


class DeviceBuffer:
    """`size` bytes of device memory, owned until `close`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.address: int | None = int(_checked(_runtime().cudaMalloc(size)))

    def upload(self, values: NDArray[Any], stream: Stream) -> None:
        """Copy a contiguous host array to the device; the array must live until the stream is synchronised."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(_runtime().cudaMemcpyAsync(self.address, values.ctypes.data, values.nbytes, kind, stream.handle))

    def download(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Stream) -> NDArray[Any]:
        """A new host array with the buffer's contents; waits for the stream."""
        values = np.empty(shape, dtype)
        kind = _runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(_runtime().cudaMemcpyAsync(values.ctypes.data, self.address, values.nbytes, kind, stream.handle))
        stream.synchronize()
        return values

    def close(self) -> None:
        if self.address is not None:
            _checked(_runtime().cudaFree(self.address))
            self.address = None
