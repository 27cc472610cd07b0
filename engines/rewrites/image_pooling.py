"""Image pooling folded: what is the same at every position goes through the projection once, not once a position.

ASPP's pooled branch (paper, section 3.3) is one value a channel, spread over the map, concatenated and projected by a 1×1
convolution W. With W = [W_b | W_p] by input channels,

    W · concat(branches, spread(p)) + b = W_b · concat(branches) + (W_p · p + b),

and the bracket is one vector an image: no Resize, no channels of the Concat. Q/DQ pairs round a value alike wherever it stands;
those that the spread map went through, the vector goes through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.dilation import Window
from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.rewrites.constants import Constant
from dlv3deploy.engines.rewrites.splice import Splice
from dlv3deploy.engines.rewrites.windows import windows_of

if TYPE_CHECKING:
    import onnx_ir as ir

NAME = "image pooling folded"
SPREADING = ("Resize", "Expand", "Tile", "Upsample", "Identity")
PAIR = ("QuantizeLinear", "DequantizeLinear")
CHANNELS = 1  # the axis


@dataclass(frozen=True)
class _Part:
    """One input of the Concat and its channels in the result; where it is alike everywhere, the N×C×1×1 it is spread from, and
    the Q/DQ nodes on the way, the last one first."""

    value: ir.Value
    channels: range
    pooled: ir.Value | None
    pairs: tuple[ir.Node, ...]


def fold_image_pooling(graph: ir.Graph) -> list[Change]:
    """Change every 1×1 convolution of `graph`, with shapes inferred, whose Concat has one input that is alike everywhere."""
    return [change for node in list(graph) if (change := _folded(node)) is not None]


def _folded(node: ir.Node) -> Change | None:
    windows, constant = windows_of(node), Constant.behind(node.inputs[1]) if len(node.inputs) > 1 else None
    if windows is None or constant is None or not _is_pointwise(node, windows):
        return None
    between = _pairs_behind(node.inputs[0])
    read = between[-1].inputs[0] if between else node.inputs[0]
    joined = None if read is None else read.producer()
    if joined is None or joined.op_type != "Concat" or joined.attributes.get_int("axis", 0) not in (CHANNELS, CHANNELS - 4):
        return None
    parts = _parts(joined, constant.numpy().shape[1])
    spread = [part for part in parts if part.pooled is not None]
    channels = {CHANNELS: [channel for part in parts if part.pooled is None for channel in part.channels]}
    alone = all(len(value.uses()) == 1 and not value.is_graph_output() for one in (joined, *between) for value in one.outputs)
    if len(spread) != 1 or not channels[CHANNELS] or not alone or not constant.can_be_cut(channels):
        return None
    before = math.prod(constant.numpy().shape) * math.prod(window.outputs for window in windows)
    saved = len(spread[0].channels) * constant.numpy().shape[0] * (math.prod(window.outputs for window in windows) - 1)
    splice, branches = Splice(node), [part.value for part in parts if part.pooled is None]
    joined.outputs[0].replace_all_uses_with(
        branches[0] if len(branches) == 1 else Splice(joined).add("Concat", [*branches], "branches", axis=CHANNELS)
    )
    weight, bias = constant.cut(channels, splice), list(node.inputs[2:])
    settings = {key: attribute.value for key, attribute in node.attributes.items()}
    of_branches = splice.add("Conv", [node.inputs[0], weight], "of_branches", **settings)
    pooled = _through(spread[0].pooled, [*reversed(spread[0].pairs), *reversed(between)], splice)
    of_pooled = splice.add("Conv", [pooled, _pooled_weight(constant, spread[0], splice), *bias], "of_pooled")
    splice.put_in_place(splice.add("Add", [of_branches, of_pooled], "sum"))
    return Change(splice.name, NAME, f"{len(spread[0].channels)} channels fewer", before, before - saved)


def _pooled_weight(constant: Constant, spread: _Part, splice: Splice) -> ir.Value:
    """In floating point, the values that grids make of the numbers."""
    import onnx_ir as ir

    kind = spread.pooled.dtype if spread.pooled is not None and spread.pooled.dtype else ir.DataType.FLOAT
    numbers = np.take(constant.values(), spread.channels, CHANNELS).astype(kind.numpy())
    return splice.constant(numbers, "of_pooled.weight", kind)


def _is_pointwise(node: ir.Node, windows: tuple[Window, Window]) -> bool:
    """At any other kernel the padding, which is 0, would make the share of a position that of its place."""
    plain = all((window.kernel, window.before, window.after) == (1, 0, 0) for window in windows)
    return plain and node.attributes.get_int("group", 1) == 1


def _pairs_behind(value: ir.Value | None) -> list[ir.Node]:
    """The Q/DQ nodes that `value` came through, the last one first."""
    found = list["ir.Node"]()
    while value is not None and (node := value.producer()) is not None and node.op_type in PAIR:
        found.append(node)
        value = node.inputs[0]
    return found


def _parts(concat: ir.Node, wanted: int) -> list[_Part]:
    """The inputs of a Concat; none where their channels are not known, or are not as many as are read."""
    found, start = list[_Part](), 0
    for value in concat.inputs:
        pooled, pairs = _spread_from(value)
        channels = next((known for known in map(_channels, (value, pooled)) if known is not None), None)
        if value is None or channels is None:
            return []
        if pooled is not None and None not in (ends := (_channels(value), _channels(pooled))) and ends[0] != ends[1]:
            pooled, pairs = None, ()  # spread over channels, too
        found.append(_Part(value, range(start, start + channels), pooled, pairs))
        start += channels
    return found if start == wanted else []


def _channels(value: ir.Value | None) -> int | None:
    shape = None if value is None else value.shape
    channels = shape[CHANNELS] if shape is not None and len(shape) == 4 else None
    return channels if isinstance(channels, int) else None


def _spread_from(value: ir.Value | None) -> tuple[ir.Value | None, tuple[ir.Node, ...]]:
    """The N×C×1×1 from which `value` is spread over a map, and the Q/DQ nodes on the way."""
    is_spread, pairs = False, list["ir.Node"]()
    while value is not None:
        if is_spread and value.shape is not None and list(value.shape[2:]) == [1, 1]:
            return value, tuple(pairs)
        node = value.producer()
        if node is None or node.op_type not in (*SPREADING, *PAIR):
            break
        is_spread = is_spread or node.op_type in SPREADING
        pairs += [node] if node.op_type in PAIR else []
        value = node.inputs[0]
    return None, ()


def _through(value: ir.Value | None, pairs: list[ir.Node], splice: Splice) -> ir.Value | None:
    """`value` after copies of the Q/DQ nodes; a pair on the grid that the one before it had changes nothing and is left out."""
    held, is_held = list[NDArray[Any]](), False
    for node in pairs:
        grid = [part.const_value.numpy() for part in node.inputs[1:] if part is not None and part.const_value is not None]
        if node.op_type == "QuantizeLinear":
            is_held, held = len(grid) == len(held) > 0 and all(map(np.array_equal, grid, held)), grid
        else:
            is_held = is_held and bool(held)
        if not is_held and value is not None:
            attributes = {key: attribute.value for key, attribute in node.attributes.items()}
            value = splice.add(node.op_type, [value, *node.inputs[1:]], "held", **attributes)
            value.type = node.outputs[0].type
    return value
