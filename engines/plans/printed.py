"""The plan that TensorRT-RTX compiled, as its builder prints it.

A builder with detailed profiling verbosity and a VERBOSE logger says `Layers:` and a line for each kernel, on a machine with no
GPU too. Every value is an attribute `Name: value`, and tensors stand in `[ { … }, { … }]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.engines.plans.plan import BITS, Kernel, Plan, Tensor

START = "Layers:"
NO_KERNEL = ("signal", "wait")  # of streams on each other
_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<outputs>.*?)\], TacticName: .*?Metadata:(?P<metadata>.*)$"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[\d,]*)\], .*?Datatype: (?P<type>\w+)")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")


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
    return Kernel(found["name"], found["kind"], inputs, constants, outputs, *nodes_of(found["metadata"]))


def nodes_of(metadata: str) -> tuple[tuple[str, ...], str]:
    """The ONNX nodes in a kernel's metadata, and what else it says."""
    return tuple(_NODE.findall(metadata)), _NODE.sub("", metadata).strip(" \x1e")


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
