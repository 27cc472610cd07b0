"""Regions: an atrous convolution whose outer taps reach half of the map or more makes its valid products, and no other.

Along one axis of size S at rate r, S/2 ≤ r < S, the first and the last S − r positions are connected in pairs, r apart; what
lies between them reads itself alone. So a map falls into pairs and middles of rows, by pairs and middles of columns: four dense
1×1 convolutions, on 4, 2, 2 and 1 times the channels, whose multiply-accumulates are those of the valid taps (Figure 4).
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from dlv3deploy.core.dilation import Window
from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.rewrites.moving import COLUMNS, ROWS, Moved, part_of
from dlv3deploy.engines.rewrites.reach import Kernel, mixing_weight
from dlv3deploy.engines.rewrites.splice import Splice

if TYPE_CHECKING:
    import onnx_ir as ir

NAME = "regions"
CHANNELS = 1
Group = tuple[range, ...]  # parts of an axis, of one length, that are connected with one another


def split_into_regions(graph: ir.Graph) -> list[Change]:
    """Change every atrous convolution of `graph`, with shapes inferred, that has fewer multiply-accumulates so."""
    return [change for node in list(graph) if (change := _split(node)) is not None]


def _split(node: ir.Node) -> Change | None:
    kernel, moved = Kernel.of(node), Moved.input_of(node)
    if kernel is None or moved is None:
        return None
    rows, columns = (groups_of(window) for window in kernel.windows)
    blocks = [(down, across) for down, across in product(rows, columns)]
    after = kernel.outputs * kernel.inputs * sum(_products(down) * _products(across) for down, across in blocks)
    if after >= kernel.macs:
        return None
    splice, found = Splice(node), dict[tuple[int, int], "ir.Value"]()
    for number, (down, across) in enumerate(blocks):
        found |= _dense(kernel, moved, down, across, splice, f"block{number}")
    tops, lefts = (sorted(part.start for group in groups for part in group) for groups in (rows, columns))
    bands = [_joined([found[top, left] for left in lefts], COLUMNS, splice, f"band{top}") for top in tops]
    splice.put_in_place(_joined(bands, ROWS, splice, "map"))
    return Change(splice.name, NAME, f"{len(blocks)} of 1×1", kernel.macs, after)


def groups_of(window: Window) -> list[Group]:
    """The parts of an axis that its taps connect, and the middle that they do not."""
    if window.kernel == 1:
        return [(range(window.size),)]
    pair = range(window.size - window.rate), range(window.rate, window.size)
    middle = range(window.size - window.rate, window.rate)
    return [pair, (middle,)] if middle else [pair]


def _products(group: Group) -> int:
    return len(group) ** 2 * len(group[0])


def _dense(
    kernel: Kernel, moved: Moved, down: Group, across: Group, splice: Splice, name: str
) -> dict[tuple[int, int], ir.Value]:
    """The results of one block by where they begin, as (row, column)."""
    places = list(product(down, across))
    parts = [part_of(moved.value, rows, columns, splice, f"{name}/{number}") for number, (rows, columns) in enumerate(places)]
    together = moved.read(_joined(parts, CHANNELS, splice, f"{name}/together"), splice, f"{name}/read")
    numbers = mixing_weight(kernel.weight.numpy(), len(down), len(across))  # i, j, O, i', j', C
    origin = np.tile(np.arange(kernel.outputs), len(places))
    weight, bias = kernel.on_other_rows(numbers.reshape(len(origin), -1, 1, 1), origin, splice)
    result = splice.add("Conv", [together, weight, *bias], name, kernel_shape=[1, 1])
    bounds = [range(start, start + kernel.outputs) for start in range(0, len(origin), kernel.outputs)]
    pieces = [result] if len(places) == 1 else [_channels(result, b, splice, f"{name}/of{b.start}") for b in bounds]
    return {(rows.start, columns.start): piece for (rows, columns), piece in zip(places, pieces, strict=True)}


def _joined(parts: list[ir.Value], axis: int, splice: Splice, name: str) -> ir.Value:
    return parts[0] if len(parts) == 1 else splice.add("Concat", [*parts], name, axis=axis)


def _channels(value: ir.Value, kept: range, splice: Splice, name: str) -> ir.Value:
    bounds = [
        splice.constant(np.array([number], np.int64), f"{name}/{word}")
        for number, word in ((kept.start, "starts"), (kept.stop, "ends"), (CHANNELS, "axes"))
    ]
    return splice.add("Slice", [value, *bounds], name)
