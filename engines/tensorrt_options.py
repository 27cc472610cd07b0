"""What a TensorRT build is asked for besides the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

BEYOND = 200  # digits of a compute capability that is none


def capability_named(text: str) -> str:
    """A compute capability however it is written, "86", "sm_86" or "8.6", as "8.6"; what is none stays as it is."""
    digits = capability_digits(text)
    return f"{digits[:-1]}.{digits[-1]}" if digits.isdecimal() and 10 <= int(digits) < BEYOND else text


def capability_digits(text: str) -> str:
    """The digits of a compute capability: "86" for "8.6", "86" and "sm_86"."""
    return text.lower().removeprefix("sm_").removeprefix("sm").replace(".", "")


@dataclass(frozen=True)
class TensorRTOptions:
    """`capabilities` ("8.6", "sm_89", …) name what a portable dialect builds for; empty means every one it knows.

    `workspace_mb` limits the scratch memory of kernels, 10⁶ bytes. A version-compatible engine runs on later TensorRTs of its
    major version, a hardware-compatible one on every GPU since Ampere; both are slower for it. `dla_core` puts what can run
    there on a deep learning accelerator, the rest on the GPU. A graph of open batch is built for 1 to `most_images` images.
    A refittable engine takes new weights (`engines.refit`), and may be slower for it; a stripped one has none, and takes those
    of its ONNX file whenever it is opened (`engines.stripped`).
    """

    capabilities: tuple[str, ...] = ()
    workspace_mb: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla_core: int | None = None
    most_images: int = 1
    refittable: bool = False
    stripped: bool = False

    def flags(self) -> dict[str, Any]:
        """Those that were asked for, as a manifest has them; capabilities are part of its target."""
        plain = asdict(TensorRTOptions())
        return {name: value for name, value in asdict(self).items() if name != "capabilities" and value != plain[name]}

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any], capabilities: tuple[str, ...]) -> TensorRTOptions:
        known = {field.name for field in fields(cls)} - {"capabilities"}
        return cls(capabilities, **{name: value for name, value in flags.items() if name in known})
