"""Memory that a build needs on a Jetson, where the GPU has the processor's and nothing says so but a dead process."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.core.graph import tensor_shapes
from dlv3deploy.core.progress import say

if TYPE_CHECKING:
    from onnx import ModelProto

MEMINFO = Path("/proc/meminfo")
RUNTIME_BYTES = 500_000_000  # an allowance for a CUDA context and TensorRT's libraries; not measured
COPIES_OF_WEIGHTS = 3  # the parsed ones, those being packed for a kernel, the engine
SHARE_FOR_WORKSPACE = 0.5
LEAST_WORKSPACE_MB = 128


def available_bytes(meminfo: Path = MEMINFO) -> int | None:
    """What programs can still get without swapping, or None where the system does not say."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def needed_bytes(model: ModelProto) -> int:
    """What a build of this graph of fixed shape takes at least: weights as often as they are held at once, the largest maps in
    and out of one layer in single precision, and the runtime."""
    weights = sum(len(weight.raw_data) or 4 * math.prod(weight.dims) for weight in model.graph.initializer)
    shapes = tensor_shapes(model.graph)
    sizes = sorted((4 * math.prod(shape) for shape in shapes.values() if all(shape)), reverse=True)
    return RUNTIME_BYTES + COPIES_OF_WEIGHTS * weights + sum(sizes[:2])


def workspace_on_shared_memory(model: ModelProto, available: int | None) -> int | None:
    """A workspace limit in 10⁶ bytes for a GPU that shares its memory, or None where nothing is known; warns where the build
    itself may not fit."""
    if available is None:
        return None
    needed = needed_bytes(model)
    if available < needed:
        say(
            f"memory is short: {available / 1e6:.0f} MB are free and the build takes {needed / 1e6:.0f} MB or more; "
            "close other programs, or add swap"
        )
    spare = max(0, available - needed)
    megabytes = max(LEAST_WORKSPACE_MB, int(SHARE_FOR_WORKSPACE * spare / 1e6))
    return 1 << (megabytes.bit_length() - 1)  # so that a little more or less free memory asks for the same engine
