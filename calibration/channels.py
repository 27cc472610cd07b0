"""Which channels of a network must be scaled together, for scaling to leave its function as it is.

Write T for a tensor and s for a positive factor per channel. ReLU, pooling, resizing and concatenation are positively
homogeneous in every channel: f(s·x) = s·f(x). A residual Add needs the same factors on both sides. A convolution takes any
factors on either side, for its weights absorb them: W'[o, i] = W[o, i] · s_out[o] / s_in[i], b' = b · s_out; a depthwise one
likewise with o = i. What bends a value (ReLU6, hard-swish, sigmoid), and the network's input and output, fixes its channels at
1.

Union-find over (tensor, channel) gives groups that share one factor. It finds ReLU pairs, depthwise stacks, linear
bottlenecks, whole residual stages and the branches of ASPP by one rule, whatever the network is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.network import Conv, Network, read_inside

if TYPE_CHECKING:
    from onnx import NodeProto

HOMOGENEOUS = {
    "AveragePool", "Dropout", "Expand", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool", "ReduceMax",
    "ReduceMean", "Relu", "Resize", "Slice", "Tile",
}  # fmt: skip
READS_THE_SHAPE = {"Shape", "Size"}
Labels = NDArray[np.intp]


@dataclass(frozen=True)
class ChannelGroups:
    """`labels` gives for each tensor the group of every channel; `free` says of each group whether it may have a factor."""

    labels: dict[str, Labels]
    free: NDArray[np.bool_]

    def of_inputs(self, conv: Conv) -> Labels:
        return self.labels[conv.input]

    def of_outputs(self, conv: Conv) -> Labels:
        return self.labels[conv.output]


def channel_groups(network: Network, through_clips: bool = False) -> ChannelGroups:
    """The groups of `network`. With `through_clips`, ReLU6 lets factors pass, for its bound can be one per channel."""
    union = _Union(network)
    absorbing = {conv.output for conv in network.convs}
    for node in network.nodes:
        if node.output[0] not in absorbing and node.op_type not in READS_THE_SHAPE:
            _join(union, node, network, through_clips)
    union.fix(network.input)
    union.fix(network.output)
    return union.groups()


def is_clip_at_zero(network: Network, node: NodeProto) -> bool:
    """Whether a Clip is ReLU6-like: nothing below 0, and a constant bound above it."""
    if node.op_type != "Clip" or len(node.input) < 3:
        return False
    low, high = (network.weights.get(name) for name in node.input[1:3])
    return low is not None and high is not None and low.size == 1 and high.size == 1 and low.item() == 0 < high.item()


def _join(union: _Union, node: NodeProto, network: Network, through_clips: bool) -> None:
    inputs = [name for name in node.input if name and name not in network.weights]
    (output, *others) = node.output
    same = node.op_type in HOMOGENEOUS or (through_clips and is_clip_at_zero(network, node))
    same = same and not _slices_channels(network, node)
    if same and not others and union.alike(node.input[0], output):
        union.join(node.input[0], output)
    elif node.op_type == "Add" and len(inputs) == 2 and all(union.alike(name, output) for name in inputs):
        for name in inputs:
            union.join(name, output)
    elif node.op_type == "Mul" and len(inputs) == 2 and all(union.alike(name, output) for name in inputs):
        gate, data = sorted(inputs, key=lambda name: np.prod(network.shapes[name][2:]))  # squeeze-and-excitation's is 1×1
        union.join(data, output)
        union.fix(gate)
    elif node.op_type == "Concat" and _axis(node) == 1 and len(inputs) == len(node.input) and union.has([*inputs, output]):
        begin = 0
        for name in inputs:
            union.join(name, output, begin)
            begin += union.channels(name)
    else:
        for name in (*inputs, *node.output, *read_inside(node)):
            union.fix(name)


def _slices_channels(network: Network, node: NodeProto) -> bool:
    """Whether a Slice may leave channels in another order: `flip` is written as one."""
    if node.op_type != "Slice":
        return False
    axes = network.weights.get(node.input[3]) if len(node.input) > 3 else None
    return axes is None or not {1, -3}.isdisjoint(axes.ravel().tolist())


def _axis(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), 1)


class _Union:
    """Union-find over all channels of all tensors that have the form N×C×H×W."""

    def __init__(self, network: Network) -> None:
        self.starts: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        count = 0
        for name, shape in network.shapes.items():
            if len(shape) == 4 and name not in network.weights:
                self.starts[name], self.sizes[name] = count, shape[1]
                count += shape[1]
        self.parent = list(range(count))
        self.fixed: set[int] = set()

    def has(self, names: list[str]) -> bool:
        return all(name in self.starts for name in names)

    def channels(self, name: str) -> int:
        return self.sizes[name]

    def alike(self, first: str, second: str) -> bool:
        return self.has([first, second]) and self.sizes[first] == self.sizes[second]

    def join(self, part: str, whole: str, begin: int = 0) -> None:
        """Channel i of `part` and channel begin + i of `whole` share a factor."""
        for i in range(self.sizes[part]):
            first, second = self._root(self.starts[part] + i), self._root(self.starts[whole] + begin + i)
            self.parent[max(first, second)] = min(first, second)

    def fix(self, name: str) -> None:
        if name in self.starts:
            self.fixed.update(range(self.starts[name], self.starts[name] + self.sizes[name]))

    def _root(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def groups(self) -> ChannelGroups:
        roots, label = np.unique([self._root(i) for i in range(len(self.parent))], return_inverse=True)
        free = np.ones(len(roots), bool)
        free[label[list(self.fixed)]] = False
        labels = {name: label[start : start + self.sizes[name]] for name, start in self.starts.items()}
        return ChannelGroups(labels, free)
