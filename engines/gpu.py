"""Which NVIDIA GPU this machine has, asked of the driver itself and of nothing that could crash without one."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

# CUdevice_attribute values of the CUDA driver API
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR, INTEGRATED = 75, 76, 18


@dataclass(frozen=True)
class Gpu:
    """The first GPU: its name, compute capability such as "8.7", the CUDA version that the driver supports, and whether its
    memory is the processor's, as a Jetson's is."""

    name: str
    compute_capability: str
    driver: str
    shares_memory: bool = False


@lru_cache(maxsize=1)
def find_gpu() -> Gpu | None:
    """The first GPU that the CUDA driver reports, or None without a driver or a device."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, device, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
        return None
    name, numbers = ctypes.create_string_buffer(256), []
    if cuda.cuDeviceGet(ctypes.byref(device), 0) or cuda.cuDeviceGetName(name, len(name), device):
        return None
    for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR, INTEGRATED):
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(), f"{numbers[0]}.{numbers[1]}", driver, bool(numbers[2]))
