"""The plan that TensorRT-RTX compiled, kernel by kernel, as its builder prints it: what it fused, and what it moves.

A builder with detailed profiling verbosity and a VERBOSE logger says `Layers:` and a line for each kernel, on a machine with no
GPU too. Every value is an attribute `Name: value`, and tensors stand in `[ { … }, { … }]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from dlv3deploy.core.errors import CheckFailed

START = "Layers:"
CONVOLUTION = "correlation"
NO_KERNEL = ("signal", "wait")  # of streams on each other
BITS = {"Float": 32, "Half": 16, "BFloat16": 16, "Int8": 8, "Int32": 32, "Int64": 64, "UInt8": 8, "FP8": 8, "Bool": 8}
_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<outputs>.*?)\], TacticName: .*?Metadata:(?P<metadata>.*)$"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[\d,]*)\], .*?Datatype: (?P<type>\w+)")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")


@dataclass(frozen=True)
class Tensor:
    """A tensor in device memory; `type` in TensorRT's words (Float, Half, Int8, …)."""

    name: str
    shape: tuple[int, ...]
    type: str

    @property
    def bytes(self) -> int:
        """What it takes without padding."""
        return math.prod(self.shape) * BITS[self.type] // 8


@dataclass(frozen=True)
class Kernel:
    """One launch. `inputs` and `outputs` are activations, `constants` weights; `nodes` the ONNX nodes that it stands for."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]

    @property
    def is_convolution(self) -> bool:
        return self.kind == CONVOLUTION


@dataclass(frozen=True)
class Plan:
    """All kernels, in the order in which they run."""

    kernels: tuple[Kernel, ...]

    @property
    def convolutions(self) -> int:
        return sum(kernel.is_convolution for kernel in self.kernels)

    @property
    def others(self) -> int:
        """Kernels that are no convolutions: quantising, resizing, copying, pooling."""
        return len(self.kernels) - self.convolutions

    @property
    def bytes_moved(self) -> int:
        """Activations read and written by all kernels, each time that one does; weights not counted."""
        return sum(tensor.bytes for kernel in self.kernels for tensor in (*kernel.inputs, *kernel.outputs))

    def figures(self) -> dict[str, int]:
        """What tells one plan from another at a glance."""
        return {"convolutions": self.convolutions, "others": self.others, "bytes_moved": self.bytes_moved}


def read_plan(messages: Iterable[str], builder: str) -> Plan:
    """The plan in what `builder` logged. Raises CheckFailed when there is none, or none of the form above."""
    text = next((message for message in messages if message.lstrip().startswith(START)), None)
    if text is None:
        raise CheckFailed(f"{builder} printed no plan; this version may do so in another form")
    lines = [line.strip() for line in text.split(START, 1)[1].splitlines()]
    layers = [line for line in lines[: lines.index("I/O Tensors:") if "I/O Tensors:" in lines else None] if line]
    kernels = tuple(kernel for line in layers if (kernel := _kernel(line, builder)).kind not in NO_KERNEL)
    if not kernels:
        raise CheckFailed(f"{builder} printed a plan without kernels; this version may print it in another form")
    return Plan(kernels)


def _kernel(line: str, builder: str) -> Kernel:
    found = _LAYER.match(line)
    if found is None:
        raise CheckFailed(f"{builder} printed a plan that cannot be read: {line[:200]}")
    inputs, constants, outputs = (_tensors(found[part], builder) for part in ("inputs", "constants", "outputs"))
    return Kernel(found["name"], found["kind"], inputs, constants, outputs, tuple(_NODE.findall(found["metadata"])))


def _tensors(text: str, builder: str) -> tuple[Tensor, ...]:
    tensors = tuple(
        Tensor(found["name"], tuple(int(size) for size in found["shape"].split(",") if size), found["type"])
        for found in _TENSOR.finditer(text)
    )
    if strange := next((tensor for tensor in tensors if tensor.type not in BITS), None):
        raise CheckFailed(f"{builder} printed a tensor of unknown type {strange.type}: {strange.name}")
    if len(tensors) != text.count("{ Name: "):
        raise CheckFailed(f"{builder} printed tensors that cannot be read: {text[:200]}")
    return tensors
