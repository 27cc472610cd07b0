"""What calibrating takes as images become more: ours streams them, ONNX Runtime's histograms do when asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from measured import Limits
from peer_environment import Peers
from quantization_cases import Request, open_case
from quantization_makers import made
from quantization_methods import Method

from dlv3deploy.core.progress import say

OURS, AUTO, PEER, STREAMED = (
    Method("ours", "entropy"),
    Method("ours", "auto"),
    Method("ort", "entropy"),
    Method("ort", "entropy", by_image=True),
)
FEW = 40  # images for which ONNX Runtime has memory as it is by default
RUNS = (
    *((OURS, count) for count in (10, FEW, 100, 200)),
    *((AUTO, count) for count in (10, 100, 200)),
    *((PEER, count) for count in (FEW, 100)),
    (STREAMED, 100),
)


@dataclass(frozen=True)
class MemoryRow:
    """`end` says how the process ended, `reason` why it failed; `about` names model and size."""

    title: str
    images: int
    seconds: float
    peak_mb: int
    end: str
    reason: str
    about: str
    day: str = ""


def memory_rows(request: Request, workspace: Path, peers: Peers, limits: Limits) -> Iterator[MemoryRow]:
    """Calibrations of one model with different numbers of images, one row each as it is measured."""
    for method, count in RUNS:
        folder = workspace / "memory" / f"{method.folder}-{count}"
        case = open_case(replace(request, calibrate=(0, 1)), folder, count, every=10**6, size=None)
        say(f"memory: {method.title}, {count} images")
        result = made(method, case, folder, peers, limits)
        height, width = case.size
        about = f"{case.name} at {height}×{width}"
        used = len(list(case.images.iterdir()))
        yield MemoryRow(method.title, used, result.seconds, result.peak_mb, result.end, result.reason, about, result.day)
