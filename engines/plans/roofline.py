"""What a plan takes on a device by the roofline model (Williams, Waterman and Patterson, 2009), to rank plans by.

A kernel takes its bytes by the bandwidth of the memory, or its products by the peak rate for their type, whichever is longer.
What caches keep from memory makes real kernels faster; launches, and all that keeps a kernel from its peak, slower. It is an
estimate, and no time that anybody measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dlv3deploy.engines.plans.devices import Device
from dlv3deploy.engines.plans.plan import Kernel, Plan

Bound = Literal["memory", "products"]


@dataclass(frozen=True)
class Estimate:
    """The time of one launch, milliseconds, and what decides it."""

    ms: float
    bound: Bound


def estimate_kernel(kernel: Kernel, device: Device) -> Estimate:
    """Weights are read once for a launch; products run at the rate of the filters' type."""
    moving = (kernel.bytes_moved + kernel.bytes_read_once) / device.bytes_per_s
    kind = kernel.weights.type if kernel.weights is not None else "Float"
    multiplying = kernel.macs / device.macs_per_s(kind)
    return Estimate(1e3 * max(moving, multiplying), "memory" if moving >= multiplying else "products")


def estimate_ms(plan: Plan, device: Device) -> float:
    """The time of all kernels one after another, milliseconds."""
    return sum(estimate_kernel(kernel, device).ms for kernel in plan.kernels)
