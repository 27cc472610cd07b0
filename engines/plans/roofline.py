"""What a plan takes at least on a device, by the roofline model (Williams, Waterman and Patterson, 2009).

A kernel is no faster than its bytes by the memory's bandwidth, nor than its products by the peak rate for their type. Launches,
caches and what keeps a kernel from a peak are not in it: an estimate to rank plans by, and no time that anybody measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dlv3deploy.engines.plans.devices import Device
from dlv3deploy.engines.plans.plan import Kernel, Plan

Bound = Literal["memory", "products"]


@dataclass(frozen=True)
class Estimate:
    """The least time of one launch, milliseconds, and what it is by."""

    ms: float
    bound: Bound


def estimate_kernel(kernel: Kernel, device: Device) -> Estimate:
    """Weights are read once for a launch; products run at the rate of the filters' type."""
    moving = (kernel.bytes_moved + kernel.bytes_read_once) / device.bytes_per_s
    kind = kernel.weights.type if kernel.weights is not None else "Float"
    multiplying = kernel.macs / device.macs_per_s(kind)
    return Estimate(1e3 * max(moving, multiplying), "memory" if moving >= multiplying else "products")


def estimate_ms(plan: Plan, device: Device) -> float:
    """The least time of all kernels one after another, milliseconds."""
    return sum(estimate_kernel(kernel, device).ms for kernel in plan.kernels)
