"""A compiled plan, whoever compiled it: kernels in their order, the tensors that each reads and writes, its products."""

from __future__ import annotations

import math
from dataclasses import dataclass

CONVOLUTION, TRANSPOSED = "conv", "deconv"  # in the names that TensorRT gives its kinds of kernels: CaskGemmConvolution, …
CORRELATION = "correlation"  # a convolution in the words of its newer compiler
AS_PRODUCT = "gemm"  # a 1×1 convolution that became a product of matrices says so in its metadata
BITS = {
    "Float": 32,
    "Half": 16,
    "BFloat16": 16,
    "Int8": 8,
    "Int32": 32,
    "Int64": 64,
    "UInt8": 8,
    "FP8": 8,
    "Int4": 4,
    "Bool": 8,
}

PRECISIONS = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16", "Int8": "int8"}


@dataclass(frozen=True)
class Tensor:
    """A tensor in device memory; `type` in TensorRT's words (Float, Half, Int8, …)."""

    name: str
    shape: tuple[int, ...]
    type: str

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What it takes without padding."""
        return self.numbers * BITS[self.type] // 8


@dataclass(frozen=True)
class Kernel:
    """One launch. `inputs` and `outputs` are activations, `constants` weights; `nodes` the ONNX nodes that it stands for."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]
    remark: str = ""  # what follows the nodes in the kernel's metadata

    @property
    def weights(self) -> Tensor | None:
        """The filters of a convolution: the constant with the most numbers."""
        return max(self.constants, key=lambda constant: constant.numbers, default=None)

    @property
    def is_convolution(self) -> bool:
        kind = self.kind.lower()
        is_named = kind == CORRELATION or (CONVOLUTION in kind and TRANSPOSED not in kind)
        return self.weights is not None and (is_named or AS_PRODUCT in self.remark)

    @property
    def macs(self) -> int:
        """Multiply-accumulates: each number of the filters once at each position of the output, padding included, or 0."""
        if self.weights is None or not self.is_convolution:
            return 0
        batch, _, *positions = self.outputs[0].shape
        return self.weights.numbers * batch * math.prod(positions)

    @property
    def bytes_moved(self) -> int:
        """Activations read and written; weights not counted."""
        return sum(tensor.bytes for tensor in (*self.inputs, *self.outputs))

    @property
    def bytes_read_once(self) -> int:
        """Weights."""
        return sum(tensor.bytes for tensor in self.constants)


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
        return sum(kernel.bytes_moved for kernel in self.kernels)

    @property
    def macs(self) -> int:
        return sum(kernel.macs for kernel in self.kernels)

    def figures(self) -> dict[str, int]:
        """What tells one plan from another at a glance."""
        return {
            "convolutions": self.convolutions,
            "others": self.others,
            "bytes_moved": self.bytes_moved,
            "macs": self.macs,
        }


def precision_of_nodes(plan: Plan) -> dict[str, str]:
    """For each ONNX node that a kernel stands for, the type of what that kernel reads first: fp32, fp16, bf16 or int8."""
    found = dict[str, str]()
    for kernel in plan.kernels:
        if kernel.inputs and (precision := PRECISIONS.get(kernel.inputs[0].type)) is not None:
            found |= dict.fromkeys(kernel.nodes, precision)
    return found
