"""Which layers a Jetson's deep learning accelerator will not run, and why: predicted from NVIDIA's published restrictions.

They are those of "DLA Supported Layers and Restrictions" in TensorRT's documentation, for TensorRT 8.6 to 10.7 on Xavier and
Orin. A builder on a machine without a DLA accepts anything, so this is a prediction and nothing has run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dlv3deploy.core.graph import attributes, convolutions, ports, tensor_shapes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Shape = tuple[int, ...]
LARGEST_SIDE, LARGEST_BATCH = 8192, 4096
KERNEL, PADDING, STRIDE, RATE = 32, 31, 8, 32  # of convolutions
BANKS, BANK_BYTES, BANK_ENTRIES = 16, 32768, 256  # of the convolution buffer
FILTER_BYTES, ATOM_BYTES, ENTRY_ATOMS, HALF = 128, 32, 4, 2
POOL_WINDOW, POOL_PADDING, POOL_STRIDE = 8, 7, 16
NEAREST_SCALE, LINEAR_SCALE = 32, 4
CLIPPED = (1.0, 127.0)  # bounds of a clipped ReLU
SOFTMAX_CLASSES = 1024
LOADABLES = 16  # pieces that one core holds at a time


@dataclass(frozen=True)
class Placement:
    """A node, and why it will not run on a DLA; no reason means that it will."""

    node: str
    operator: str
    reason: str = ""


@dataclass(frozen=True)
class Prediction:
    """`pieces`: into how many parts the DLA's share falls at least; `macs_on_dla`: its fraction of the multiply-accumulates,
    from 0 to 1."""

    placements: tuple[Placement, ...]
    pieces: int
    macs_on_dla: float

    @property
    def elsewhere(self) -> tuple[Placement, ...]:
        return tuple(placement for placement in self.placements if placement.reason)


@dataclass(frozen=True)
class _Layer:
    """A node with what its rule asks for: shapes of inputs and outputs, constants, attributes."""

    node: NodeProto
    given: tuple[Shape, ...]
    made: tuple[Shape, ...]
    constants: Mapping[str, NDArray[Any]]
    settings: Mapping[str, Any]

    def constant(self, place: int) -> NDArray[Any] | None:
        return self.constants.get(self.node.input[place]) if len(self.node.input) > place else None


def predict(model: ModelProto) -> Prediction:
    """Of a graph of fixed shape. Raises UserError, as reading its ports does, where it is no network of images."""
    from onnx import numpy_helper, shape_inference

    graph = shape_inference.infer_shapes(model).graph
    shapes, constants = tensor_shapes(graph), {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    shapes |= {name: tuple(values.shape) for name, values in constants.items()}
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    placements = []
    for node in nodes:
        given = tuple(shapes.get(name, ()) for name in node.input if name)
        layer = _Layer(node, given, tuple(shapes.get(name, ()) for name in node.output), constants, attributes(node))
        placements.append(Placement(node.name or node.output[0], node.op_type, _reason(layer)))
    _, _, height, width = ports(model, "the graph")[0].shape
    work = {conv.name: conv.macs for conv in convolutions(model, height or 0, width or 0)}
    on_dla = sum(work.get(placement.node, 0) for placement in placements if not placement.reason)
    running = [node for node, placement in zip(nodes, placements, strict=True) if not placement.reason]
    return Prediction(tuple(placements), _pieces(running), on_dla / max(1, sum(work.values())))


def _pieces(nodes: Sequence[NodeProto]) -> int:
    """How many parts nodes form that pass tensors to each other."""
    group: dict[str, int] = {}
    for number, node in enumerate(nodes):
        joined = {group[name] for name in node.input if name in group}
        group = {name: number if one in joined else one for name, one in group.items()}
        group.update(dict.fromkeys(node.output, number))
    return len(set(group.values()))


def _reason(layer: _Layer) -> str:
    for shape in (*layer.given[:1], *layer.made):
        if shape and (shape[0] > LARGEST_BATCH or max(shape[1:], default=0) > LARGEST_SIDE):
            return f"a map of {_sides(shape)}: batches go to {LARGEST_BATCH}, other sides to {LARGEST_SIDE}"
    rule = RULES.get(layer.node.op_type)
    return rule(layer) if rule is not None else "no layer of a DLA does it"


def _convolution(layer: _Layer) -> str:
    filters, settings = layer.given[1], layer.settings
    if len(filters) != 4:
        return f"a convolution over {len(filters) - 2} dimensions, not 2"
    for name, values, low, high in (
        ("kernel", filters[2:], 1, KERNEL),
        ("padding", settings.get("pads", ()), 0, PADDING),
        ("stride", settings.get("strides", ()), 1, STRIDE),
        ("atrous rate", settings.get("dilations", ()), 1, RATE),
    ):
        if any(not low <= value <= high for value in values):
            return f"{name} {_sides(values)}, goes from {low} to {high}"
    banks = _banks(layer)
    return f"needs {banks} banks of the convolution buffer, there are {BANKS}" if banks > BANKS else ""


def _banks(layer: _Layer) -> int:
    """Banks of the convolution buffer that a filter and the rows which it spans take in half precision, as the guide counts."""
    _, channels, _, width = layer.given[0]
    _, per_group, height, across = layer.given[1]
    rate = int(layer.settings.get("dilations", (1, 1))[0])
    filters = -(-(per_group * height * across * HALF) // FILTER_BYTES) * FILTER_BYTES
    entries = math.ceil(-(-(channels * HALF) // ATOM_BYTES) * width / ENTRY_ATOMS)
    rows = (height - 1) * rate + 1
    return math.ceil(filters / BANK_BYTES) + math.ceil(entries * rows / BANK_ENTRIES)


def _transposed(layer: _Layer) -> str:
    settings = layer.settings
    if any(settings.get("pads", ())):
        return "a transposed convolution with padding"
    if settings.get("group", 1) != 1 or any(rate != 1 for rate in settings.get("dilations", ())):
        return "a transposed convolution that is grouped or atrous"
    return ""


def _clipped(layer: _Layer) -> str:
    low, high = layer.constant(1), layer.constant(2)
    if low is None or high is None or float(low) != 0 or not CLIPPED[0] <= float(high) <= CLIPPED[1]:
        return f"clips otherwise than from 0 to a bound of {CLIPPED[0]:g} to {CLIPPED[1]:g}"
    return ""


def _pooling(layer: _Layer) -> str:
    settings = layer.settings
    for name, key, low, high in (
        ("window", "kernel_shape", 1, POOL_WINDOW),
        ("padding", "pads", 0, POOL_PADDING),
        ("stride", "strides", 1, POOL_STRIDE),
    ):
        if any(not low <= value <= high for value in settings.get(key, ())):
            return f"{name} {_sides(settings[key])}, goes from {low} to {high}"
    if any(rate != 1 for rate in settings.get("dilations", ())):
        return "an atrous window"
    if layer.node.op_type == "AveragePool" and any(settings.get("pads", ())) and not settings.get("count_include_pad", 0):
        return "leaves padding out of its averages"
    return ""


def _global_pooling(layer: _Layer) -> str:
    window = layer.given[0][2:]
    return f"a window of {_sides(window)}, goes to {POOL_WINDOW}" if max(window, default=0) > POOL_WINDOW else ""


def _concatenated(layer: _Layer) -> str:
    rank = len(layer.made[0])
    return "" if layer.settings.get("axis", 0) % max(rank, 1) == 1 else "joins along another axis than channels"


def _resized(layer: _Layer) -> str:
    mode, given, made = layer.settings.get("mode", b"nearest"), layer.given[0], layer.made[0]
    if len(given) != 4 or len(made) != 4 or given[:2] != made[:2]:
        return "resizes more than height and width"
    most = {b"nearest": NEAREST_SCALE, b"linear": LINEAR_SCALE}.get(mode)
    if most is None:
        return f"{mode.decode()} interpolation"
    scales = [after / before for before, after in zip(given[2:], made[2:], strict=True)]
    if any(not scale.is_integer() or not 1 <= scale <= most for scale in scales):
        return f"{mode.decode()} by {_sides([f'{scale:g}' for scale in scales])}, goes by whole numbers from 1 to {most}"
    return ""


def _softmax(layer: _Layer) -> str:
    classes = layer.given[0][1] if len(layer.given[0]) == 4 and layer.settings.get("axis", -1) in (1, -3) else 0
    return "" if 1 <= classes <= SOFTMAX_CLASSES else f"goes along channels, up to {SOFTMAX_CLASSES}, and on Orin alone"


def _shuffled(layer: _Layer) -> str:
    given, made = layer.given[0], layer.made[0]
    keeps = len(given) == len(made) == 4 and given[0] == made[0] and layer.settings.get("perm", [0])[0] == 0
    return "" if keeps else "moves what is not one of 4 dimensions, or the batch"


def _quantised(_layer: _Layer) -> str:
    return "a DLA takes INT8 from a calibration cache, not from Q/DQ"


def _runs(_layer: _Layer) -> str:
    return ""


RULES: dict[str, Callable[[_Layer], str]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Clip": _clipped,
    "MaxPool": _pooling,
    "AveragePool": _pooling,
    "GlobalAveragePool": _global_pooling,
    "GlobalMaxPool": _runs,
    "ReduceMean": lambda _: "of reductions only the largest value",
    "ReduceSum": lambda _: "of reductions only the largest value",
    "Concat": _concatenated,
    "Resize": _resized,
    "Softmax": _softmax,
    "Transpose": _shuffled,
    "Reshape": _shuffled,
    "QuantizeLinear": _quantised,
    "DequantizeLinear": _quantised,
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "LeakyRelu", "PRelu", "BatchNormalization", "Identity", "Slice", "Abs"), _runs),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "ReduceMax"), _runs),
}


def _sides(values: Sequence[Any]) -> str:
    distinct = list(dict.fromkeys(values))
    return str(distinct[0]) if len(distinct) == 1 else "×".join(map(str, values))
