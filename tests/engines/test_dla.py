"""What stays off a DLA: each published limit, one side of it and the other, and a whole network."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_graphs import Graph, quantized_deeplab
from onnx import ModelProto
from tiny_models import tiny_deeplab

from dlv3deploy.core.graph import fix_input, simplified
from dlv3deploy.engines.dla import Prediction, predict
from dlv3deploy.engines.rewrites.rewrite import IN_THEIR_ORDER, rewritten


def reason(graph: Graph, output: str) -> str:
    """Why the node that makes `output` stays on the GPU."""
    model = graph.model(output, 17)
    placements = {p.node: p for p in predict(fix_input(model, (1, 3, *graph.size))).placements}
    return placements[output].reason if output in placements else list(placements.values())[-1].reason


def conv(kernel: int, rate: int = 1, stride: int = 1, pad: int | None = None) -> str:
    graph = Graph(size=(160, 160))
    padding = [rate * (kernel // 2) if pad is None else pad] * 4
    weight = graph.constant(np.zeros((4, 3, kernel, kernel)))
    settings = {"pads": padding, "dilations": [rate] * 2, "strides": [stride] * 2, "kernel_shape": [kernel] * 2}
    return reason(graph, graph.node("Conv", ["image", weight], "made", **settings))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: conv(3), ""),
        (lambda: conv(3, rate=31), ""),
        (lambda: conv(3, rate=32), "padding 32, goes from 0 to 31"),
        (lambda: conv(3, rate=32, pad=31), ""),
        (lambda: conv(3, rate=33, pad=31), "atrous rate 33, goes from 1 to 32"),
        (lambda: conv(32, pad=0), ""),
        (lambda: conv(33, pad=0), "kernel 33, goes from 1 to 32"),
        (lambda: conv(3, stride=8), ""),
        (lambda: conv(3, stride=9), "stride 9, goes from 1 to 8"),
    ],
)
def test_convolutions_have_limits(made, says: str) -> None:
    assert made() == says


@pytest.mark.parametrize(
    ("channels", "rate", "banks"),
    [(2048, 12, 106), (320, 18, 25), (320, 6, 10), (64, 1, 2)],
)
def test_rows_that_a_filter_spans_must_fit_into_the_convolution_buffer(channels: int, rate: int, banks: int) -> None:
    """Banks of 32 KiB for a filter, of 256 entries for rows; by hand for 33 columns: entries = ceil(ceil(2C / 32) · 33 / 4)."""
    graph = Graph(size=(33, 33))
    wide = graph.conv("image", "wide", (channels, 3, 1, 1))
    weight = graph.constant(np.zeros((8, channels, 3, 3)))
    made = graph.node("Conv", [wide, weight], "made", pads=[rate] * 4, dilations=[rate] * 2, kernel_shape=[3, 3])
    expected = f"needs {banks} banks of the convolution buffer, there are 16" if banks > 16 else ""
    assert reason(graph, made) == expected


def pool(operator: str, **settings: object) -> str:
    graph = Graph(size=(64, 64))
    return reason(graph, graph.node(operator, ["image"], "made", **settings))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: pool("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), ""),
        (lambda: pool("MaxPool", kernel_shape=[9, 8]), "window 9×8, goes from 1 to 8"),
        (lambda: pool("MaxPool", kernel_shape=[2, 2], strides=[17, 17]), "stride 17, goes from 1 to 16"),
        (lambda: pool("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), "an atrous window"),
        (lambda: pool("AveragePool", kernel_shape=[3, 3], pads=[1] * 4), "leaves padding out of its averages"),
        (lambda: pool("AveragePool", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1), ""),
        (lambda: pool("GlobalAveragePool"), "a window of 64, goes to 8"),
        (lambda: pool("ReduceMean", axes=[2, 3]), "of reductions only the largest value"),
        (lambda: pool("ReduceMax", axes=[2, 3]), ""),
        (lambda: pool("Softplus"), "no layer of a DLA does it"),
        (lambda: pool("HardSwish"), "no layer of a DLA does it"),
        (lambda: pool("Softmax", axis=1), ""),
        (lambda: pool("Softmax", axis=2), "goes along channels, up to 1024, and on Orin alone"),
        (lambda: pool("Transpose", perm=[0, 2, 3, 1]), ""),
        (lambda: pool("Transpose", perm=[1, 0, 2, 3]), "moves what is not one of 4 dimensions, or the batch"),
    ],
)
def test_pooling_and_what_else_has_settings(made, says: str) -> None:
    assert made() == says


def test_a_small_map_is_averaged_whole() -> None:
    graph = Graph(size=(8, 7))
    assert reason(graph, graph.node("GlobalAveragePool", ["image"], "made")) == ""


@pytest.mark.parametrize(
    ("low", "high", "runs"), [(0, 6, True), (0, 127, True), (-1, 6, False), (0, 0.5, False), (0, 128, False)]
)
def test_a_clipped_relu_has_a_range(low: float, high: float, runs: bool) -> None:
    graph = Graph()
    why = reason(graph, graph.node("Clip", ["image", graph.constant(low), graph.constant(high)], "made"))
    assert (why == "") == runs and (runs or why == "clips otherwise than from 0 to a bound of 1 to 127")


@pytest.mark.parametrize(
    ("mode", "size", "says"),
    [
        ("linear", (32, 64), ""),
        ("linear", (40, 80), "linear by 5, goes by whole numbers from 1 to 4"),
        ("linear", (20, 40), "linear by 2.5, goes by whole numbers from 1 to 4"),
        ("nearest", (40, 80), ""),
        ("nearest", (8, 528), "nearest by 1×33, goes by whole numbers from 1 to 32"),
        ("cubic", (16, 32), "cubic interpolation"),
    ],
)
def test_resizing_goes_by_whole_numbers(mode: str, size: tuple[int, int], says: str) -> None:
    graph = Graph(size=(8, 16))
    target = graph.constant([1, 3, *size], np.int64)
    assert reason(graph, graph.node("Resize", ["image", "", "", target], "made", mode=mode)) == says


def test_concatenation_is_of_channels() -> None:
    for axis, says in ((1, ""), (-3, ""), (2, "joins along another axis than channels")):
        graph = Graph()
        assert reason(graph, graph.node("Concat", ["image", "image"], "made", axis=axis)) == says


def test_maps_have_a_largest_side() -> None:
    graph = Graph(size=(2, 8193))
    assert reason(graph, graph.relu("image")).startswith("a map of 1×3×2×8193: batches go to 4096")


def whole(model: ModelProto, height: int = 64, width: int = 96) -> Prediction:
    return predict(simplified(fix_input(model, (1, 3, height, width))))


def test_image_pooling_stays_on_the_gpu_and_cuts_the_network_apart() -> None:
    found = whole(tiny_deeplab())
    kinds = {placement.operator for placement in found.elsewhere}
    assert kinds == {"GlobalAveragePool", "Tile"}  # what the tiny network spreads its mean with
    assert found.macs_on_dla == 1.0 and found.pieces >= 1


def test_folded_image_pooling_spreads_nothing() -> None:
    changed, changes = rewritten(simplified(fix_input(tiny_deeplab(), (1, 3, 64, 96))), [IN_THEIR_ORDER["image-pooling"]])
    assert changes
    assert "Tile" not in {placement.operator for placement in predict(changed).elsewhere}


def test_a_rate_that_a_dla_has_not_is_none_once_its_taps_are_dead() -> None:
    """torchvision's rate 36: on a map of 33×33 a 1×1 convolution."""
    graph = Graph(size=(33, 33))
    weight = graph.constant(np.random.default_rng(0).standard_normal((4, 3, 3, 3)))
    settings = {"pads": [36] * 4, "dilations": [36] * 2, "kernel_shape": [3, 3]}
    model = fix_input(graph.model(graph.node("Conv", ["image", weight], "atrous", **settings), 17), (1, 3, 33, 33))
    plain, (changed, changes) = predict(model), rewritten(model, [IN_THEIR_ORDER["dead-taps"]])
    assert [placement.reason for placement in plain.elsewhere] == ["padding 36, goes from 0 to 31"]
    assert plain.macs_on_dla == 0.0
    assert changes and predict(changed).elsewhere == () and predict(changed).macs_on_dla == 1.0


def test_quantised_graphs_are_pointed_to_the_calibration_cache() -> None:
    found = predict(quantized_deeplab())
    reasons = {p.reason for p in found.elsewhere if p.operator == "QuantizeLinear"}
    assert reasons == {"a DLA takes INT8 from a calibration cache, not from Q/DQ"}


def test_pieces_are_parts_that_pass_tensors_to_each_other() -> None:
    graph = Graph(size=(16, 16))
    left, right = graph.relu(graph.conv("image", "left", (4, 3, 1, 1))), graph.conv("image", "right", (4, 3, 1, 1))
    apart = graph.node("HardSwish", [right], "swish")
    last = graph.conv(graph.node("Add", [left, apart], "sum"), "last", (2, 4, 1, 1))
    found = predict(fix_input(graph.model(last, 17), (1, 3, 16, 16)))
    assert [p.operator for p in found.elsewhere] == ["HardSwish"] and found.pieces == 2
