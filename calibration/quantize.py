"""Writing the Q/DQ model: explicit, symmetric INT8 with zero point 0, in the form that every TensorRT and ONNX Runtime read.

Weights stay in the file as floats behind a Q/DQ pair of their own (per output channel), because TensorRT 8 reads no INT8
initializers; backends fold that pair when they load the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.placement import ONE_SCALE, Placement, merged
from dlv3deploy.core.errors import UserError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

OLDEST_OPSET = 13  # the first whose QuantizeLinear has scales per channel


def require_opset(model: ModelProto) -> None:
    """Raises UserError for one whose pairs have no scales per channel."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if opset < OLDEST_OPSET:
        raise UserError(f"opset {opset}", f"per-channel INT8 needs opset {OLDEST_OPSET}", "export again with --opset 17")


def quantized(
    model: ModelProto, placement: Placement, ranges: Mapping[str, Range], weight_steps: Mapping[str, NDArray[np.float32]]
) -> ModelProto:
    """A copy of `model` with Q/DQ pairs as `placement` says: scales of activations from `ranges`, of weights as given, one per
    output channel (axis 0) or one in all. Raises UserError for an old opset."""
    import onnx

    require_opset(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, pairs = result.graph, _Pairs()
    nodes: list[NodeProto] = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            if placement.weights.get(node.name) == name and position == 1:
                node.input[position] = pairs.add(name, weight_steps[name], axis=0 if weight_steps[name].ndim else None)
            elif name in placement.reads.get(node.name, ()):
                node.input[position] = pairs.add(name, np.float32(ranges[name].step()), axis=None)
        nodes += [*pairs.take_new(), node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(pairs.initializers)
    return result


def shared_ranges(placement: Placement, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """`ranges` in which tensors that share a scale have the union of theirs."""
    merged = dict(ranges)
    for group in placement.shared:
        union = ranges[min(group)]
        for name in group:
            union = union.union(ranges[name])
        merged.update(dict.fromkeys(group, union))
    return merged


def sharing_one_scale(graph: GraphProto, ranged: Collection[str]) -> tuple[frozenset[str], ...]:
    """The groups of `ranged` tensors that have one scale in a Q/DQ graph, whether or not each has a pair there."""
    behind = {dequantized_name(name): name for name in ranged}
    groups = [
        {behind.get(name, name) for name in (*node.input, *node.output)} for node in graph.node if node.op_type in ONE_SCALE
    ]
    return merged([group for group in groups if group.issubset(ranged)])


def dequantized_name(tensor: str) -> str:
    """What a Q/DQ graph calls a tensor behind its pair."""
    return f"{tensor}/dequantized"


class _Pairs:
    """Q/DQ pairs, one for each tensor however many nodes read it, in front of the first that does."""

    def __init__(self) -> None:
        self.outputs: dict[str, str] = {}
        self.new: list[NodeProto] = []
        self.initializers: list[object] = []

    def add(self, tensor: str, scale: NDArray[np.float32] | np.float32, axis: int | None) -> str:
        from onnx import helper, numpy_helper

        if tensor in self.outputs:
            return self.outputs[tensor]
        steps = np.asarray(scale, np.float32)
        names = [*(f"{tensor}/{part}" for part in ("scale", "zero_point", "quantized")), dequantized_name(tensor)]
        self.initializers += [
            numpy_helper.from_array(steps, names[0]),
            numpy_helper.from_array(np.zeros(steps.shape, np.int8), names[1]),
        ]
        where: dict[str, Any] = {} if axis is None else {"axis": axis}
        self.new += [
            helper.make_node("QuantizeLinear", [tensor, *names[:2]], [names[2]], name=f"{tensor}/quantize", **where),
            helper.make_node("DequantizeLinear", [names[2], *names[:2]], [names[3]], name=f"{tensor}/dequantize", **where),
        ]
        self.outputs[tensor] = names[3]
        return names[3]

    def take_new(self) -> list[NodeProto]:
        taken, self.new = self.new, []
        return taken
