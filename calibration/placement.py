"""Where Q/DQ pairs stand: the recipe that lets a compiler fuse and keeps what is sensitive in floating point.

- Every convolution on a map reads INT8 through one pair on its data input and has per-channel INT8 weights. What lies
  between a convolution and the next pair (bias, ReLU, ReLU6) has no pair, so that Conv + activation fuse.
- Of a residual Add the skipped input has a pair, and what its convolution makes for it has none, so that Conv + Add fuse and
  write INT8. Where no input comes from a convolution for it alone, all of them have pairs.
- All inputs of a Concat, and its output, share one scale, so that it stays a copy.
- What has a pair is read through it by pooling and resizing too, so that it is written once, in INT8. Convolutions that are
  kept in floating point read it as it was.
- Image pooling (convolutions on a 1×1 map), Resize, and the last convolution's output stay in floating point: they are a
  thousandth of the work and decide a whole map.
- Biases have none: INT32 biases with Q/DQ are refused by TensorRT-RTX, and compilers derive their scale themselves.

On residual sums NVIDIA's own advice is the same (NVIDIA/TensorRT#3270): a pair behind the convolution keeps Conv and Add apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import tensor_shapes

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

PASSES_VALUES_ON = ("MaxPool",)  # what goes in comes out
ONE_SCALE = ("Concat", *PASSES_VALUES_ON)  # for all inputs and the output


@dataclass(frozen=True)
class Placement:
    """`reads` maps a node's name to the tensors it must read through a pair; tensors in one of `shared` have one scale.
    `pooling` says whether image pooling may be INT8."""

    reads: dict[str, tuple[str, ...]]
    weights: dict[str, str]  # convolution's name → its weight initializer
    shared: tuple[frozenset[str], ...]
    kept_float: tuple[str, ...]
    pooling: bool = False

    @property
    def tensors(self) -> list[str]:
        """Every activation that needs a range, in a fixed order."""
        return sorted({tensor for tensors in self.reads.values() for tensor in tensors} | set().union(*self.shared))


def place(graph: GraphProto, keep: Collection[str] = (), pooling: bool = False) -> Placement:
    """The recipe for a simplified graph with inferred shapes. Raises UserError when there is nothing to quantise.

    Convolutions named in `keep` stay in floating point; with `pooling`, those of image pooling become INT8 too.
    """
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node):
        raise UserError("this ONNX file", "is quantised already", "calibrate the floating-point model it was made from")
    weights, kept = _convolutions(graph, keep, pooling)
    if not weights and keep:
        raise UserError("this ONNX file", "has no convolution left to quantise", "keep fewer of them in floating point")
    if not weights:
        raise UserError(
            "this ONNX file", "has no convolution with constant weights to quantise", "export it with its weights in it"
        )
    reads: dict[str, tuple[str, ...]] = {node.name: (node.input[0],) for node in graph.node if node.name in weights}
    reads |= _sums_and_concats(graph, weights)
    reads |= _passing_on(graph, reads)
    alike = [{*node.input, node.output[0]} for node in graph.node if node.name in reads and node.op_type in ONE_SCALE]
    return Placement(reads | _other_readers(graph, reads), weights, merged(alike), tuple(kept), pooling)


def _convolutions(graph: GraphProto, keep: Collection[str], pooling: bool) -> tuple[dict[str, str], list[str]]:
    """The weights of those that become INT8, by name, and the names of those that do not."""
    constants, shapes = {w.name for w in graph.initializer}, tensor_shapes(graph)
    weights, kept = dict[str, str](), list[str]()
    for node in graph.node:
        if node.op_type == "Conv":
            given = shapes.get(node.input[0], ())
            pooled = given[2:] == (1, 1) and not pooling
            if len(given) != 4 or not constants.issuperset(filter(None, node.input[1:])) or pooled or node.name in keep:
                kept.append(node.name)
            else:
                weights[node.name] = node.input[1]
    return weights, kept


def _sums_and_concats(graph: GraphProto, convs: Collection[str]) -> dict[str, tuple[str, ...]]:
    """What they read through pairs where one of `convs` follows."""
    constants, shapes = {w.name for w in graph.initializer}, tensor_shapes(graph)
    fused, before_int8 = _fused_with_add(graph), _before(graph, convs)
    return {
        node.name: tuple(name for name in node.input if name != fused.get(node.name))
        for node in graph.node
        if node.op_type in ("Add", "Concat") and node.output[0] in before_int8 and _on_maps(node, shapes, constants)
    }


def _passing_on(graph: GraphProto, reads: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Nodes that only choose among their input's values, in front of what is read through a pair."""
    held = {name for names in reads.values() for name in names}
    return {n.name: (n.input[0],) for n in graph.node if n.op_type in PASSES_VALUES_ON and n.output[0] in held}


def _other_readers(graph: GraphProto, reads: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Every node, convolutions aside, reads through its pair what has one."""
    held = {name for names in reads.values() for name in names}
    return {
        node.name: tuple(name for name in node.input if name in held)
        for node in graph.node
        if node.op_type != "Conv" and not held.isdisjoint(node.input)
    }


def _on_maps(node: NodeProto, shapes: dict[str, tuple[int, ...]], constants: set[str]) -> bool:
    """Whether all that a node reads is N×C×H×W and computed from the image."""
    return all(len(shapes.get(name, ())) == 4 and name not in constants for name in node.input)


def _before(graph: GraphProto, convs: Collection[str]) -> set[str]:
    """The tensors that reach one of `convs` with no other convolution in between."""
    found = set[str]()
    for node in reversed(graph.node):
        if node.name in convs or (node.op_type != "Conv" and not found.isdisjoint(node.output)):
            found.update(node.input)
    return found


def _fused_with_add(graph: GraphProto) -> dict[str, str]:
    """By the name of an Add, its input that a convolution makes for it alone, in the shape of the sum; of several the one with
    most behind it. Whether that convolution is INT8 does not matter: kept in floating point it still does the sum itself."""
    depth: dict[str, int] = {}
    shapes = tensor_shapes(graph)
    made, readers = dict[str, int](), Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    fused = {}
    for node in graph.node:
        behind = 1 + max((depth.get(name, 0) for name in node.input), default=0)
        depth.update(dict.fromkeys(node.output, behind))
        if node.op_type == "Conv" and readers[node.output[0]] == 1:
            made[node.output[0]] = behind
        able = [name for name in node.input if name in made and shapes.get(name) == shapes.get(node.output[0])]
        if node.op_type == "Add" and able:
            fused[node.name] = max(able, key=made.__getitem__)
    return fused


def merged(groups: list[set[str]]) -> tuple[frozenset[str], ...]:
    """Groups that have a tensor in common become one."""
    owner: dict[str, set[str]] = {}
    for group in groups:
        joined = set(group)
        for tensor in group:
            joined |= owner.get(tensor, set())
        for tensor in joined:
            owner[tensor] = joined
    unique: dict[int, set[str]] = defaultdict(set)
    for joined in owner.values():
        unique[id(joined)] = joined
    return tuple(frozenset(group) for group in unique.values())
