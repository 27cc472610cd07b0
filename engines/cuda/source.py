"""The kernels' sources, `.cu` files beside this one, which tests also compile for the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Sums and products stay apart, so that a mask is the CPU's in every pixel.
OPTIONS = ("--fmad=false", "--std=c++17")


@dataclass(frozen=True)
class Source:
    """Some files that are compiled as one, and the kernels in them."""

    files: tuple[str, ...]
    kernels: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.files[-1]

    @property
    def text(self) -> str:
        return "\n".join(Path(__file__).with_name(file).read_text(encoding="utf-8") for file in self.files)


FRAMES = Source(("half.cu", "frames.cu"), ("prepare",))
MASKS = Source(("half.cu", "masks.cu"), ("rank", "label"))
