"""Blocks that segmentation networks are made of, each from CHANNELS maps to CHANNELS maps of the same size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from calibration_graphs import Graph

CHANNELS = 6
Block = Callable[[Graph, str, str], str]  # graph, input tensor, name → output tensor


def relu_pair(graph: Graph, given: str, name: str) -> str:
    inner = graph.relu(graph.conv(given, f"{name}.first", (8, CHANNELS, 3, 3)))
    return graph.relu(graph.conv(inner, f"{name}.second", (CHANNELS, 8, 3, 3), rate=2))


def depthwise_stack(graph: Graph, given: str, name: str) -> str:
    wide = graph.relu(graph.conv(given, f"{name}.expand", (8, CHANNELS, 1, 1)))
    for number in range(2):
        wide = graph.relu(graph.conv(wide, f"{name}.depthwise{number}", (8, 1, 3, 3), groups=8))
    return graph.relu(graph.conv(wide, f"{name}.project", (CHANNELS, 8, 1, 1)))


def _bottleneck(graph: Graph, given: str, name: str, bend: Callable[[str], str]) -> str:
    wide = bend(graph.conv(given, f"{name}.expand", (8, CHANNELS, 1, 1)))
    deep = bend(graph.conv(wide, f"{name}.depthwise", (8, 1, 3, 3), groups=8))
    return graph.node("Add", [given, graph.conv(deep, f"{name}.project", (CHANNELS, 8, 1, 1))], f"{name}.sum")


def linear_bottlenecks(graph: Graph, given: str, name: str) -> str:
    """MobileNetV2's with ReLU6: two on one stream, whose channels only the stream's own convolutions scale."""
    given = graph.conv(given, f"{name}.stream", (CHANNELS, CHANNELS, 1, 1))
    for number in range(2):
        given = _bottleneck(graph, given, f"{name}.{number}", graph.relu6)
    return graph.relu(graph.conv(given, f"{name}.end", (CHANNELS, CHANNELS, 1, 1)))


def relu_bottlenecks(graph: Graph, given: str, name: str) -> str:
    for number in range(2):
        given = _bottleneck(graph, given, f"{name}.{number}", graph.relu)
    return given


def grouped(graph: Graph, given: str, name: str) -> str:
    inner = graph.relu(graph.conv(given, f"{name}.first", (8, CHANNELS // 2, 3, 3), groups=2))
    return graph.relu(graph.conv(inner, f"{name}.second", (CHANNELS, 4, 3, 3), groups=2))


def pooled_and_resized(graph: Graph, given: str, name: str) -> str:
    """Down by a strided maximum, up again bilinearly, a border cut off; LeakyReLU between."""
    height, width = graph.size
    small = graph.node("MaxPool", [given], f"{name}.small", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inner = graph.conv(small, f"{name}.inner", (CHANNELS, CHANNELS, 3, 3))
    small = graph.node("LeakyRelu", [inner], f"{name}.leaky", alpha=0.1)
    sizes = graph.constant([1, CHANNELS, height + 2, width + 1], np.int64)
    large = graph.node("Resize", [small, "", "", sizes], f"{name}.large", mode="linear")
    cut = [graph.constant(values, np.int64) for values in ([1, 0], [height + 1, width], [2, 3])]
    return graph.node("Slice", [large, *cut], f"{name}.cut")


def squeeze_and_excitation(graph: Graph, given: str, name: str) -> str:
    """MobileNetV3's: a gate of HardSigmoid, and HardSwish behind."""
    inner = graph.relu(graph.conv(given, f"{name}.conv", (CHANNELS, CHANNELS, 3, 3)))
    mean = graph.node("GlobalAveragePool", [inner], f"{name}.mean")
    squeezed = graph.relu(graph.conv(mean, f"{name}.squeeze", (4, CHANNELS, 1, 1)))
    gate = graph.node("HardSigmoid", [graph.conv(squeezed, f"{name}.excite", (CHANNELS, 4, 1, 1))], f"{name}.gate")
    gated = graph.node("Mul", [inner, gate], f"{name}.gated")
    return graph.node("HardSwish", [graph.conv(gated, f"{name}.last", (CHANNELS, CHANNELS, 1, 1))], f"{name}.swish")


def aspp(graph: Graph, given: str, name: str) -> str:
    """Two atrous branches, a pointwise one and image pooling, joined and projected."""
    branches = [graph.relu(graph.conv(given, f"{name}.pointwise", (4, CHANNELS, 1, 1)))]
    branches += [graph.relu(graph.conv(given, f"{name}.atrous{rate}", (4, CHANNELS, 3, 3), rate=rate)) for rate in (3, 8)]
    mean = graph.node("GlobalAveragePool", [given], f"{name}.mean")
    pooled = graph.relu(graph.conv(mean, f"{name}.pooled", (4, CHANNELS, 1, 1)))
    branches.append(graph.node("Tile", [pooled, graph.constant([1, 1, *graph.size], np.int64)], f"{name}.spread"))
    joined = graph.node("Concat", branches, f"{name}.joined", axis=1)
    return graph.relu(graph.conv(joined, f"{name}.projection", (CHANNELS, 16, 1, 1)))


BLOCKS: dict[str, Block] = {
    "ReLU pair": relu_pair,
    "depthwise stack": depthwise_stack,
    "linear bottlenecks": linear_bottlenecks,
    "ReLU bottlenecks": relu_bottlenecks,
    "grouped": grouped,
    "pooled and resized": pooled_and_resized,
    "squeeze and excitation": squeeze_and_excitation,
    "ASPP": aspp,
}


def stacked(names: Sequence[str], seed: int = 0) -> tuple[Graph, str]:
    """A stem, these blocks one behind the other, and a classifier: the graph and its output."""
    graph = Graph(seed)
    given = graph.relu(graph.conv("image", "stem", (CHANNELS, 3, 3, 3)))
    for number, name in enumerate(names):
        given = BLOCKS[name](graph, given, f"block{number}")
    return graph, graph.conv(given, "scores", (3, CHANNELS, 1, 1))
