"""CUDA through both packages, on a machine without a GPU: cuda-python's real calls, which fail by CUDA's own errors, and a
PyCUDA that is played, for it has no wheel. What they do with a GPU: `test_kernels.py`, marked `gpu`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.engines.cuda import by_cuda_python, by_pycuda
from dlv3deploy.engines.cuda import device as module
from dlv3deploy.engines.cuda.device import open_device
from dlv3deploy.engines.gpu import find_gpu

without_gpu = pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU, where these calls succeed")
FLOAT = np.dtype(np.float32)


def bare_stream() -> Any:
    """A stream that nothing was asked for: CUDA's own, which is 0."""
    stream = object.__new__(by_cuda_python._Stream)
    stream._stream = 0
    return stream


@without_gpu
@pytest.mark.parametrize(
    "call",
    [
        by_cuda_python.CudaPythonDevice,
        by_cuda_python._Stream,
        lambda: by_cuda_python._Memory(64),
        lambda: by_cuda_python._Copied((4, 4), FLOAT),
        lambda: by_cuda_python._Mapped((4, 4), FLOAT),
        lambda: bare_stream().capture(lambda: None),
        lambda: by_cuda_python._Graph(0).launch(bare_stream()),
        lambda: by_cuda_python._Kernel(None)((1, 1, 1), (1, 1, 1), [np.int32(1)], None),  # type: ignore[arg-type]  # not reached
    ],
    ids=["device", "stream", "memory", "copied", "mapped", "capture", "graph", "kernel"],
)
def test_calls_of_cuda_python_fail_by_cudas_own_name(call: Callable[[], Any]) -> None:
    pytest.importorskip("cuda.bindings")
    with pytest.raises(CheckFailed, match="CUDA call failed: cudaError"):
        call()


class Capturing:
    """CUDA's runtime as far as capturing goes, which needs a device; names and results are those of cuda-python 13."""

    class cudaStreamCaptureMode:
        cudaStreamCaptureModeThreadLocal = "of this thread"

    def __init__(self, refused: int = 0) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refused = refused

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        results = {"cudaStreamEndCapture": ["graph"], "cudaGraphInstantiate": ["executable"]}

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            is_refused = self.refused and name == "cudaGraphInstantiate"
            return (Code("cudaErrorMemoryAllocation", 2) if is_refused else 0, *results.get(name, []))

        return call


class Code(int):
    name: str

    def __new__(cls, name: str, value: int) -> Code:
        made = super().__new__(cls, value)
        made.name = name
        return made


@pytest.mark.parametrize("how", ["captured", "work fails", "no memory"])
def test_every_capture_is_ended_and_nothing_of_it_stays(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Capturing(refused=how == "no memory")
    monkeypatch.setattr(by_cuda_python, "_cuda", lambda: (None, runtime))

    def work() -> None:
        runtime.calls.append(("work",))
        if how == "work fails":
            raise KeyboardInterrupt

    captured = [("cudaStreamBeginCapture", 0, "of this thread"), ("work",), ("cudaStreamEndCapture", 0)]
    made, gone = [("cudaGraphInstantiate", "graph", 0)], [("cudaGraphDestroy", "graph")]
    if how == "captured":
        graph = bare_stream().capture(work)
        assert runtime.calls == [*captured, *made, *gone]
        graph.launch(bare_stream())
        graph.close()
        graph.close()
        assert runtime.calls[5:] == [("cudaGraphLaunch", "executable", 0), ("cudaGraphExecDestroy", "executable")]
    else:
        with pytest.raises(KeyboardInterrupt if how == "work fails" else CheckFailed):
            bare_stream().capture(work)
        assert runtime.calls == [*captured, *(made if how == "no memory" else []), *gone]


def test_cuda_python_takes_the_arguments_that_it_is_given() -> None:
    """A launch by a pointer that is no kernel's is refused by the driver or for want of one, never for its arguments' kinds."""
    driver = pytest.importorskip("cuda.bindings.driver")
    if find_gpu() is not None:
        pytest.skip("on a GPU the kernels themselves are run")
    arguments = [np.int32(1), np.float32(2), np.float64(3), np.uint64(4)]
    types = tuple(by_cuda_python.C_TYPES[type(argument)] for argument in arguments)
    values = tuple(argument.item() for argument in arguments)
    with pytest.raises(RuntimeError, match="driver"):
        driver.cuLaunchKernel(driver.CUfunction(0), 1, 1, 1, 1, 1, 1, 0, 0, (values, types), 0)


@pytest.mark.parametrize(("here", "wanted"), [(["cuda", "cuda.bindings", "pycuda"], "cuda-python"), (["pycuda"], "pycuda")])
def test_cuda_python_comes_before_pycuda(here: list[str], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: name if name in here else None)
    monkeypatch.setattr(by_cuda_python, "CudaPythonDevice", lambda: "cuda-python")
    monkeypatch.setattr(by_pycuda, "PyCudaDevice", lambda: "pycuda")
    assert open_device() == wanted


def test_with_neither_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs cuda-python or PyCUDA.*install dlv3deploy\[cuda\]"):
        open_device()


class Played:
    """PyCUDA's driver as far as the wrapper uses it: the real one needs a CUDA toolkit to be built. Names and parameters are
    those of PyCUDA 2026.1's sources."""

    class Error(Exception): ...

    class Context:
        depth = 0

        @classmethod
        def pop(cls) -> None:
            cls.depth -= 1

        def push(self) -> None:
            type(self).depth += 1

    class Device:
        def __init__(self, index: int) -> None:
            assert index == 0

        def retain_primary_context(self) -> Played.Context:
            return Played.Context()

    class Stream:
        handle = 7

        def synchronize(self) -> None:
            assert Played.Context.depth == 1

    class host_alloc_flags:
        DEVICEMAP = 2

    def __init__(self) -> None:
        self.device_memory: dict[int, bytearray] = {}
        self.log: list[str] = []

    def init(self) -> None:
        self.log.append("init")

    def mem_alloc(self, size: int) -> Any:
        played, address = self, 4096 * (len(self.device_memory) + 1)
        self.device_memory[address] = bytearray(size)

        class Allocation:
            def __int__(self) -> int:
                return address

            def free(self) -> None:
                del played.device_memory[address]

        assert self.Context.depth == 1
        return Allocation()

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        assert mem_flags == self.host_alloc_flags.DEVICEMAP and self.Context.depth == 1

        class Mapped(np.ndarray):
            base = None  # type: ignore[assignment]  # set below

        class Base:
            def get_device_pointer(self) -> int:
                return 99

        array = np.zeros(shape, dtype).view(Mapped)
        type(array).base = Base()  # type: ignore[assignment]  # as PyCUDA's allocation is
        return array

    def memcpy_htod_async(self, dest: int, src: np.ndarray, stream: Any = None) -> None:
        assert isinstance(stream, self.Stream) and self.Context.depth == 1
        self.device_memory[dest][:] = src.tobytes()

    def memcpy_dtoh_async(self, dest: np.ndarray, src: int, stream: Any = None) -> None:
        assert isinstance(stream, self.Stream) and self.Context.depth == 1
        dest[...] = np.frombuffer(bytes(self.device_memory[src]), dest.dtype).reshape(dest.shape)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    from types import ModuleType

    driver, package = Played(), ModuleType("pycuda")
    package.driver = driver  # type: ignore[attr-defined]  # a module that is played
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)  # type: ignore[arg-type]  # a module that is played
    return driver


def test_pycuda_s_memory_goes_there_and_back_in_the_primary_context(played: Played) -> None:
    device = by_pycuda.PyCudaDevice()
    stream = device.stream()
    assert stream.handle == 7
    exchange = device.exchange((2, 3), FLOAT, is_read_once=True)
    exchange.values[:] = np.arange(6).reshape(2, 3)
    exchange.send(stream)
    exchange.values[:] = 0
    exchange.fetch(stream)
    stream.synchronize()
    np.testing.assert_array_equal(exchange.values, np.arange(6).reshape(2, 3))
    assert exchange.address in played.device_memory
    for _ in range(2):  # closing twice is allowed
        exchange.close()
    assert not played.device_memory and Played.Context.depth == 0


def test_where_pycuda_shares_memory_nothing_is_copied(played: Played) -> None:
    device = by_pycuda.PyCudaDevice()
    device.shares_memory = True
    exchange = device.exchange((2, 3), FLOAT, is_read_once=True)
    assert exchange.address == 99 and not played.device_memory
    assert device.exchange((2, 3), FLOAT).address != 99


def test_pycuda_s_errors_are_told_by_their_name(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_size: int) -> None:
        raise Played.Error("cuMemAlloc failed: out of memory")

    device = by_pycuda.PyCudaDevice()
    monkeypatch.setattr(played, "mem_alloc", fail)
    with pytest.raises(CheckFailed, match="CUDA call failed: cuMemAlloc failed: out of memory"):
        device.memory(64)
    assert Played.Context.depth == 0
