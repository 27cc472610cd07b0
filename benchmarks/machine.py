"""On what a figure was measured: the processor, the GPU, the versions."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dlv3deploy


@dataclass(frozen=True)
class Machine:
    """`cores` are those that this process may use; `gpu` is None where there is none, or torch has no CUDA."""

    cpu: str
    cores: int
    gpu: str | None
    torch: str | None
    python: str
    dlv3deploy: str

    def lines(self) -> list[str]:
        return [
            f"CPU: {self.cpu}, {self.cores} cores",
            f"GPU: {self.gpu or 'none'}",
            f"dlv3deploy {self.dlv3deploy}, torch {self.torch or 'not installed'}, Python {self.python}",
        ]


def this_machine(gpu: str | None) -> Machine:
    """Of the GPU only its name is needed, and who asks torch for it has loaded torch."""
    cores = len(os.sched_getaffinity(0))
    return Machine(_cpu_model(), cores, gpu, installed("torch"), platform.python_version(), dlv3deploy.__version__)


def _cpu_model() -> str:
    """The name in /proc/cpuinfo, which ARM's kernels leave out; then the instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def installed(package: str) -> str | None:
    """The version of a package, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
