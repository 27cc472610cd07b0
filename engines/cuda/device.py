"""Device: what the rest asks of CUDA, in one form for both packages that Python reaches it by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import UserError
from dlv3deploy.engines.cuda.source import Source

INSTALL = "install dlv3deploy[cuda], or pycuda where a CUDA toolkit is"
Size = tuple[int, int, int]
Argument = np.int32 | np.float32 | np.float64 | np.uint64  # addresses are np.uint64


class Graph(Protocol):
    """Work that was captured: the same copies and kernels at the same addresses, queued by one call."""

    def launch(self, stream: Stream) -> None: ...

    def close(self) -> None: ...


class Stream(Protocol):
    """A queue of work on the device, done in its order. Streams overlap."""

    @property
    def handle(self) -> int: ...

    def capture(self, work: Callable[[], None]) -> Graph | None:
        """What `work` queues here, without doing it; None where the package has no graphs. Raises CheckFailed where some of it
        cannot be captured."""

    def synchronize(self) -> None:
        """Wait for everything that is queued."""

    def close(self) -> None: ...


class Memory(Protocol):
    """`size` bytes of device memory at `address`, owned until `close`."""

    @property
    def address(self) -> int: ...

    @property
    def size(self) -> int: ...

    def close(self) -> None: ...


class Exchange(Memory, Protocol):
    """Device memory and an array of the host that stands for it: what is written here is there after `send`, what a kernel
    wrote there is here after `fetch`, both in their stream's order. Where the two share memory, nothing is copied."""

    @property
    def values(self) -> NDArray[Any]: ...

    def send(self, stream: Stream) -> None: ...

    def fetch(self, stream: Stream) -> None: ...


class Kernel(Protocol):
    def __call__(self, blocks: Size, threads: Size, arguments: Sequence[Argument], stream: Stream) -> None:
        """Queue one run; the arguments' types are those of the kernel's parameters, in their order."""


class Device(Protocol):
    """The first GPU, in its primary context, which TensorRT uses too. All raise CheckFailed with CUDA's name of an error."""

    def stream(self) -> Stream: ...

    def memory(self, size: int) -> Memory: ...

    def exchange(self, shape: tuple[int, ...], dtype: np.dtype[Any], is_read_once: bool = False) -> Exchange:
        """`is_read_once`: kernels touch each value about once, so that on a Jetson, whose memory is the processor's but is not
        cached for both, sharing it beats copying."""

    def kernels(self, source: Source) -> Mapping[str, Kernel]:
        """Compile a source for this GPU. Raises UserError where no compiler can be found, CheckFailed where it refuses."""


def open_device() -> Device:
    """By cuda-python, or by PyCUDA where that alone is installed. Raises UserError where neither is."""
    if find_spec("cuda") is not None and find_spec("cuda.bindings") is not None:
        from dlv3deploy.engines.cuda.by_cuda_python import CudaPythonDevice

        return CudaPythonDevice()
    if find_spec("pycuda") is not None:
        from dlv3deploy.engines.cuda.by_pycuda import PyCudaDevice

        return PyCudaDevice()
    raise UserError("running on the GPU", "needs cuda-python or PyCUDA, and neither is installed", INSTALL)


def address_of(memory: Memory, offset: int = 0) -> np.uint64:
    return np.uint64(memory.address + offset)
