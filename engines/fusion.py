"""Which parts of a graph can become one kernel, by the rules that TensorRT documents for Q/DQ graphs.

- A convolution whose data and weights come out of DequantizeLinear computes in INT8, if they are symmetric, signed and 8 bits
  wide, the data with one scale.
- Batch norm and what works on its result element by element (activations, products with constants, one residual Add) run in
  its kernel.
- The kernel writes INT8 when all that leaves it is one tensor that goes through QuantizeLinear with one scale. It writes
  floating point when something reads that tensor as it is, or when it adds one that is not INT8; then another kernel quantises.
- What stands between pairs without being in a convolution's kernel (an activation behind a pair, a sum of two pairs, a pooled
  map) is a kernel of its own too, in INT8 or not.
- QuantizeLinear moves towards the input and DequantizeLinear towards the output over what only copies (Concat, MaxPool, …).

These are the sections "Processing of Q/DQ Networks" and "Q/DQ Layer-Placement Recommendations" of NVIDIA's documentation of
explicit quantisation, and its layer fusion catalogue. TensorRT-RTX 1.7 does not do all of that: see `plan.py` for what it does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlv3deploy.core.graph import attributes, tensor_shapes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
COPIES = (
    *("Concat", "DepthToSpace", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "SpaceToDepth", "Split"),
    *("Squeeze", "Transpose", "Unsqueeze"),
)
ELEMENT_BY_ELEMENT = (
    *("Abs", "Add", "BatchNormalization", "Clip", "Div", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max"),
    *("Min", "Mish", "Mul", "PRelu", "Relu", "Sigmoid", "Softplus", "Sub", "Tanh"),
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
    """`others` are the activations, by name, that a kernel without a convolution has to write in INT8."""

    convolutions: tuple[ConvolutionKernel, ...]
    others: tuple[str, ...]
    is_quantized: bool

    @property
    def writing_int8(self) -> int:
        return sum(kernel.writes_int8 for kernel in self.convolutions)


def fusion_of(model: ModelProto) -> Fusion:
    """What can fuse in a graph whose shapes are inferred (see `core.graph.fix_input`)."""
    graph = _Graph(model)
    convolutions = [position for position, node in enumerate(graph.nodes) if node.op_type == "Conv"]
    # Backwards, for of two convolutions in front of an Add the later one can do it.
    kernels = [graph.kernel_at(position) for position in reversed(convolutions)]
    is_quantized = any(node.op_type == QUANTIZE for node in graph.nodes)
    return Fusion(tuple(reversed(kernels)), tuple(graph.written_by_others()), is_quantized)


@dataclass(frozen=True)
class _Grid:
    """A quantisation: its type, and scale and zero point by value where they are constants (else by name)."""

    kind: str
    scale: bytes
    zero_point: bytes
    scales: int  # how many; 0 where they are computed

    def objection(self, to: str) -> str:
        """Why TensorRT computes nothing in INT8 on this grid; empty when it does."""
        if self.kind != "int8":
            return f"{to} in {self.kind}"
        if any(self.zero_point):
            return f"{to} quantised with a zero point"
        return ""


@dataclass
class _Region:
    """What one kernel computes: its nodes, and the tensors that they make."""

    nodes: list[NodeProto]
    tensors: list[str]
    added: str = ""  # the one tensor from elsewhere


class _Graph:
    def __init__(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.shapes = tensor_shapes(model.graph)
        self.results = {output.name for output in model.graph.output}
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.readers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        self.initializers = {weight.name: weight for weight in model.graph.initializer}
        self.constants = set(self.initializers)
        for node in self.nodes:
            for name in dict.fromkeys((*node.input, *_read_inside(node))):
                self.readers[name].append(node)
            if all(name in self.constants for name in node.input if name):  # a Constant has no input at all
                self.constants.update(node.output)
        self._values = dict[str, Any]()  # read so far
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

    def written_by_others(self) -> list[str]:
        """Activations that no convolution writes in INT8 and that are no copies of what is INT8 on the wanted grid."""
        found = dict[tuple[str, _Grid], None]()
        for node in self.nodes:
            if node.op_type == QUANTIZE and node.input[0] not in self.constants:
                grid = self._grid(node)
                for tensor, given in self._sources(node.input[0]):
                    if tensor not in self.int8 and given != grid:
                        found[tensor, grid] = None
        return [tensor for tensor, _ in found]

    def _region(self, position: int) -> _Region:
        conv = self.nodes[position]
        region, downstream = _Region([conv], [conv.output[0]]), set[str]()
        for node in self.nodes[position + 1 :]:
            given = [name for name in (*node.input, *_read_inside(node)) if name and name not in self.constants]
            if not (set(given) & {*region.tensors, *downstream}):
                continue
            others = [name for name in given if name not in region.tensors]
            if not downstream.isdisjoint(given) or not self._fits(node, others, region):
                downstream.update(node.output)
                continue
            region.nodes.append(node)
            region.tensors.append(node.output[0])
            region.added = region.added or next(iter(others), "")
        return region

    def _fits(self, node: NodeProto, others: Sequence[str], region: _Region) -> bool:
        """Whether a node that reads what the kernel makes, and `others` from elsewhere, can run in it."""
        shape = self.shapes.get(region.tensors[0])
        of_one_shape = shape is not None and all(self.shapes.get(name) == shape for name in (node.output[0], *others))
        is_residual = node.op_type == "Add" and len(others) == 1 and not region.added
        free = node.op_type in ELEMENT_BY_ELEMENT and node.output[0] not in self.in_kernels
        return free and of_one_shape and (not others or is_residual)

    def _reads_float(self, conv: NodeProto) -> str:
        """Which of its inputs is not what an INT8 kernel reads, in words; empty when both are."""
        for to, name in zip(("its data is", "its weights are"), conv.input, strict=False):
            for _, grid in self._sources(name):
                if grid is None:
                    return f"{to} in floating point"
                if objection := grid.objection(to):
                    return objection
                if to.startswith("its data") and grid.scales > 1:
                    return f"{to} quantised with several scales"
        return ""

    def _writes_float(self, region: _Region) -> str:
        """What makes the kernel write floating point, in words; empty when it writes INT8."""
        if region.added and any(grid is None or grid.objection("") for _, grid in self._sources(region.added)):
            return f"it adds {region.added}, which is in floating point"
        if not self.results.isdisjoint(region.tensors):
            return "it makes the graph's output"
        leaving = {tensor: self._outside(tensor, region) for tensor in region.tensors}
        for readers in leaving.values():
            if plain := next((reader for reader in readers if reader.op_type != QUANTIZE), None):
                if region.tensors[0] not in self.shapes and plain.op_type in ELEMENT_BY_ELEMENT:
                    return "the shape of its result is not known"
                return f"{plain.op_type} {plain.name} reads it in floating point"
        if len([tensor for tensor, readers in leaving.items() if readers]) > 1:
            return "several of its results are quantised"
        if len({self._grid(reader) for readers in leaving.values() for reader in readers}) > 1:
            return "it is quantised with several scales"
        return ""

    def _outside(self, tensor: str, region: _Region) -> list[NodeProto]:
        return [reader for reader in self._readers(tensor) if set(reader.output).isdisjoint(region.tensors)]

    def _readers(self, tensor: str) -> Iterator[NodeProto]:
        """Who reads `tensor`, copies looked through except where they are the graph's output."""
        for node in self.readers[tensor]:
            if node.op_type in COPIES and self.results.isdisjoint(node.output):
                for output in node.output:
                    yield from self._readers(output)
            else:
                yield node

    def _sources(self, tensor: str) -> Iterator[tuple[str, _Grid | None]]:
        """The tensors that `tensor` is a copy of, with their grids; None for what comes out of no DequantizeLinear."""
        maker = self.makers.get(tensor)
        if maker is None or maker.op_type not in (DEQUANTIZE, *COPIES):
            yield tensor, None
        elif maker.op_type == DEQUANTIZE:
            yield tensor, self._grid(maker)
        else:
            joined = [name for name in maker.input if name not in self.constants] if maker.op_type == "Concat" else []
            for name in joined or maker.input[:1]:
                yield from self._sources(name)

    def _grid(self, node: NodeProto) -> _Grid:
        """That of a QuantizeLinear or DequantizeLinear; a zero point that is left out is 0."""
        scale, zero_point = self._value(node.input[1]), self._value(node.input[2] if len(node.input) > 2 else "")
        scales = 0 if scale is None else scale.size
        has_zero = len(node.input) > 2 and bool(node.input[2])
        zero = b"" if zero_point is None or not zero_point.any() else zero_point.tobytes()
        return _Grid(
            self._kind(node) if zero_point is None else str(zero_point.dtype),
            node.input[1].encode() if scale is None else scale.tobytes(),
            node.input[2].encode() if zero_point is None and has_zero else zero,
            scales,
        )

    def _kind(self, node: NodeProto) -> str:
        """The type of a quantised tensor that no zero point tells: of stored weights, else what QuantizeLinear says."""
        if node.op_type == DEQUANTIZE:
            stored = self._value(node.input[0])
            maker = self.makers.get(node.input[0])
            return str(stored.dtype) if stored is not None else self._grid(maker).kind if maker is not None else "uint8"
        from onnx import TensorProto

        wanted = attributes(node).get("output_dtype", 0)
        return TensorProto.DataType.Name(wanted).lower() if wanted else "uint8"

    def _value(self, name: str) -> Any:
        """The array of an initializer or a Constant, or None."""
        if name not in self._values:
            self._values[name] = self._read(name)
        return self._values[name]

    def _read(self, name: str) -> Any:
        import numpy as np
        from onnx import numpy_helper

        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "Constant":
            return None
        given = attributes(maker)
        if "value" in given:
            return numpy_helper.to_array(given["value"])
        numbers = next((given[key] for key in ("value_float", "value_floats") if key in given), None)
        return None if numbers is None else np.asarray(numbers, np.float32)


def _read_inside(node: NodeProto) -> Iterator[str]:
    """The names that a node's own graphs (of If, Loop, Scan) read."""
    for attribute in node.attribute:
        bodies: list[GraphProto] = [attribute.g, *attribute.graphs]
        for body in bodies:
            for inner in body.node:
                yield from inner.input
                yield from _read_inside(inner)
