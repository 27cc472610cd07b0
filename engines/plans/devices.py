"""GPUs by their published figures, for estimates of what a plan takes on one that is not here.

Peaks are products of what NVIDIA publishes for each: multiprocessors, boost clock and, by its architecture's white paper, dense
multiply-accumulates of one multiprocessor in one clock. FP32 is counted in TF32 since Ampere, which TensorRT takes for it, and
on CUDA cores before; FP16 (summing in FP32) and INT8 on tensor cores. AGX Orin comes to the 85 dense INT8 TOPS (170 sparse) of
its GPU in the data sheet, RTX 4090 to 660.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dlv3deploy.core.errors import UserError

VOLTA = {"Float": 64, "Half": 512, "Int8": 1024}  # of Xavier
ORIN = {"Float": 512, "Half": 1024, "BFloat16": 1024, "Int8": 2048}
GEFORCE = {"Float": 128, "Half": 256, "BFloat16": 256, "Int8": 1024}  # Ampere, Ada and Blackwell alike


@dataclass(frozen=True)
class Device:
    """`macs_per_clock`: dense multiply-accumulates of a multiprocessor in one clock, by the type of the filters."""

    title: str
    capability: str
    multiprocessors: int
    clock_ghz: float
    gb_per_s: float
    macs_per_clock: Mapping[str, int]

    def macs_per_s(self, kind: str) -> float:
        """Of filters of this type; of types that it has no faster way for as of FP32."""
        return self.multiprocessors * self.clock_ghz * 1e9 * self.macs_per_clock.get(kind, self.macs_per_clock["Float"])

    @property
    def bytes_per_s(self) -> float:
        return self.gb_per_s * 1e9


DEVICES = {
    "xavier": Device("Jetson AGX Xavier", "7.2", 8, 1.377, 136.5, VOLTA),
    "orin-nano": Device("Jetson Orin Nano 8GB", "8.7", 8, 0.625, 68.0, ORIN),
    "orin-nano-super": Device("Jetson Orin Nano Super", "8.7", 8, 1.02, 102.0, ORIN),
    "orin-nx": Device("Jetson Orin NX 16GB", "8.7", 8, 0.918, 102.4, ORIN),
    "agx-orin": Device("Jetson AGX Orin 64GB", "8.7", 16, 1.3, 204.8, ORIN),
    "rtx3060": Device("GeForce RTX 3060 12GB", "8.6", 28, 1.777, 360.0, GEFORCE),
    "rtx4090": Device("GeForce RTX 4090", "8.9", 128, 2.52, 1008.0, GEFORCE),
    "rtx5090": Device("GeForce RTX 5090", "12.0", 170, 2.407, 1792.0, GEFORCE),
}


def device_named(text: str) -> Device:
    """The device of that name, however it is spaced. Raises UserError listing those that are known."""
    for known, device in DEVICES.items():
        if _letters(text) in (_letters(known), _letters(device.title), _letters(device.title.removeprefix("GeForce"))):
            return device
    raise UserError(f"device {text!r}", "is none whose figures are known", f"use one of {', '.join(DEVICES)}")


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
