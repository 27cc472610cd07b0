"""Which parts of a graph can become one kernel, by the rules that TensorRT documents for Q/DQ graphs.

- A convolution whose data and weights come out of DequantizeLinear computes in INT8.
- What works on its result element by element (activation, product with a constant, residual Add) runs in its kernel.
- The kernel writes INT8 when all that leaves it goes through QuantizeLinear with one scale. It writes floating point when
  something reads the result as it is, or when it adds a tensor that is no INT8 itself; then a kernel of its own quantises.
- QuantizeLinear moves towards the input and DequantizeLinear towards the output over what only copies (Concat, MaxPool, …).

These are the sections "Processing of Q/DQ Networks" and "Q/DQ Layer-Placement Recommendations" of NVIDIA's documentation of
explicit quantisation, and its layer fusion catalogue. TensorRT-RTX 1.7 does not do all of that: see `plan.py` for what it does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlv3deploy.core.graph import attributes, tensor_shapes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
COPIES = ("Concat", "Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
Scale = tuple[bytes, ...]
ELEMENT_BY_ELEMENT = (
    *("Abs", "Add", "Clip", "Div", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mish", "Mul"),
    *("PRelu", "Relu", "Sigmoid", "Softplus", "Sub", "Tanh"),
)


@dataclass(frozen=True)
class ConvolutionKernel:
    """A convolution and what its kernel does besides (`fused`, types of nodes in their order).

    `reason` says why floating point is read, or else why it is written; empty when both are INT8.
    """

    name: str
    reads_int8: bool
    writes_int8: bool
    fused: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Fusion:
    """`quantising` are the activations, by name, that a kernel other than a convolution has to turn into INT8."""

    convolutions: tuple[ConvolutionKernel, ...]
    quantising: tuple[str, ...]
    is_quantized: bool

    @property
    def writing_int8(self) -> int:
        return sum(kernel.writes_int8 for kernel in self.convolutions)


def fusion_of(model: ModelProto) -> Fusion:
    """What can fuse in a graph whose shapes are inferred (see `core.graph.fix_input`)."""
    graph = _Graph(model)
    convolutions = [position for position, node in enumerate(graph.nodes) if node.op_type == "Conv"]
    kernels = [
        graph.kernel_at(position) for position in reversed(convolutions)
    ]  # of two in front of an Add the later can do it
    is_quantized = any(node.op_type == QUANTIZE for node in graph.nodes)
    return Fusion(tuple(reversed(kernels)), tuple(graph.quantised_by_others()), is_quantized)


@dataclass
class _Region:
    """What one kernel computes: its nodes, and the tensors that they make."""

    nodes: list[NodeProto]
    tensors: set[str]
    float_inputs: list[str] = field(default_factory=list)


class _Graph:
    def __init__(self, model: ModelProto) -> None:
        from onnx import numpy_helper

        self.nodes = list(model.graph.node)
        self.shapes = tensor_shapes(model.graph)
        self.results = {output.name for output in model.graph.output}
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.readers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        self.values = {weight.name: numpy_helper.to_array(weight).tobytes() for weight in model.graph.initializer}
        self.constants = set(self.values)
        for node in self.nodes:
            for name in dict.fromkeys(filter(None, node.input)):
                self.readers[name].append(node)
            if all(name in self.constants for name in node.input if name):  # a Constant has no input at all
                self.constants.update(node.output)
            if node.op_type == "Constant" and "value" in (given := attributes(node)):
                self.values[node.output[0]] = numpy_helper.to_array(given["value"]).tobytes()
        self.in_kernels = set[str]()  # tensors that the kernels of convolutions make
        self.int8 = set[str]()  # those of them that leave their kernel in INT8

    def kernel_at(self, position: int) -> ConvolutionKernel:
        """Grow the kernel of the convolution there, and keep what is in it from other kernels."""
        conv, region = self.nodes[position], self._region(position)
        self.in_kernels.update(region.tensors)
        reason = self._reads_float(conv)
        reads_int8 = not reason
        reason = reason or self._writes_float(region)
        if not reason:
            self.int8.update(region.tensors)
        fused = tuple(node.op_type for node in region.nodes[1:])
        return ConvolutionKernel(conv.name or conv.output[0], reads_int8, not reason, fused, reason)

    def quantised_by_others(self) -> list[str]:
        """Activations that no convolution writes in INT8 and that are no copies of what is INT8 at the wanted scale."""
        found = dict[tuple[str, Scale], None]()
        for node in self.nodes:
            if node.op_type == QUANTIZE and node.input[0] not in self.constants:
                for tensor, scale in self._sources(node.input[0]):
                    if tensor not in self.int8 and scale != self._scale(node):
                        found[tensor, self._scale(node)] = None
        return [tensor for tensor, _ in found]

    def _region(self, position: int) -> _Region:
        conv = self.nodes[position]
        region, downstream = _Region([conv], {conv.output[0]}), set[str]()
        shape = self.shapes.get(conv.output[0])
        for node in self.nodes[position + 1 :]:
            given = {name for name in node.input if name and name not in self.constants}
            if region.tensors.isdisjoint(given) and downstream.isdisjoint(given):
                continue
            free = node.output[0] not in self.in_kernels and downstream.isdisjoint(given)
            if not free or node.op_type not in ELEMENT_BY_ELEMENT or shape is None or self.shapes.get(node.output[0]) != shape:
                downstream.update(node.output)
                continue
            region.float_inputs += [n for n in given - region.tensors if any(scale is None for _, scale in self._sources(n))]
            region.nodes.append(node)
            region.tensors.update(node.output)
        return region

    def _reads_float(self, conv: NodeProto) -> str:
        """Which of its inputs is floating point, in words; empty when none is."""
        for called, name in zip(("its data is", "its weights are"), conv.input, strict=False):
            if any(scale is None for _, scale in self._sources(name)):
                return f"{called} in floating point"
        return ""

    def _writes_float(self, region: _Region) -> str:
        """What makes the kernel write floating point, in words; empty when it writes INT8."""
        if region.float_inputs:
            return f"it adds {region.float_inputs[0]}, which is in floating point"
        if not region.tensors.isdisjoint(self.results):
            return "it makes the graph's output"
        readers = [reader for tensor in sorted(region.tensors) for reader in self._readers(tensor)]
        outside = [reader for reader in readers if region.tensors.isdisjoint(reader.output)]
        if plain := next((reader for reader in outside if reader.op_type != QUANTIZE), None):
            return f"{plain.op_type} {plain.name} reads it in floating point"
        if len({self._scale(reader) for reader in outside}) > 1:
            return "it is quantised with several scales"
        return ""

    def _readers(self, tensor: str) -> Iterator[NodeProto]:
        """Who reads `tensor`, copies looked through except where they are the graph's output."""
        for node in self.readers[tensor]:
            if node.op_type in COPIES and node.output[0] not in self.results:
                yield from self._readers(node.output[0])
            else:
                yield node

    def _sources(self, tensor: str) -> Iterator[tuple[str, Scale | None]]:
        """The tensors that `tensor` is a copy of, with their scales; None for what comes out of no DequantizeLinear."""
        maker = self.makers.get(tensor)
        if maker is None or maker.op_type not in (DEQUANTIZE, *COPIES):
            yield tensor, None
        elif maker.op_type == DEQUANTIZE:
            yield tensor, self._scale(maker)
        else:
            for name in maker.input if maker.op_type == "Concat" else maker.input[:1]:
                yield from self._sources(name)

    def _scale(self, node: NodeProto) -> Scale:
        """What tells one quantisation from another: its scale and zero point, by value where they are constants."""
        return tuple(self.values.get(name, name.encode()) for name in node.input[1:])
