from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import Graph, conv_of, convolved, noise, run
from onnx import helper, numpy_helper
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.core.errors import CheckFailed

pytest.importorskip("onnxruntime")
EVERYTHING = Method("mse", equalise=True, bias=True, rounding=True)


def quantises(network: Network) -> None:
    Calibration(network, noise(2, network.shapes[network.input][2:])).quantise(EVERYTHING).model()


def test_preparing_changes_no_output_and_not_the_model_that_was_given() -> None:
    model = tiny_deeplab()
    before = model.SerializeToString(deterministic=True)
    network = Network.prepared(model, HEIGHT, WIDTH)
    (image,) = noise(1, (HEIGHT, WIDTH))()
    np.testing.assert_allclose(run(network.model, image)[0], run(model, image)[0], rtol=1e-4, atol=1e-5)
    assert model.SerializeToString(deterministic=True) == before


def test_a_convolution_without_a_bias_gets_one_of_zeros() -> None:
    graph = Graph()
    output = graph.conv("image", "conv", (4, 3, 3, 3))
    del graph.nodes[-1].input[2]
    network = graph.network(output)
    np.testing.assert_array_equal(network.weights[network.convs[0].bias], np.zeros(4))


def test_batch_norm_is_folded_into_the_convolution_before_it() -> None:
    graph = Graph()
    given = graph.conv("image", "conv", (4, 3, 3, 3))
    parameters = [graph.constant(np.linspace(0.5, 2, 4) + i) for i in range(4)]
    network = graph.network(graph.node("BatchNormalization", [given, *parameters], "norm"))
    assert [node.op_type for node in network.nodes] == ["Conv"]


def test_weights_held_in_constant_nodes_are_found() -> None:
    graph = Graph()
    output = graph.conv("image", "conv", (4, 3, 3, 3))
    graph.nodes[:0] = [helper.make_node("Constant", [], [w.name], value=w) for w in graph.weights]
    graph.weights.clear()
    assert len(graph.network(output).convs) == 1


def test_a_weight_that_two_convolutions_read_can_be_changed_for_one() -> None:
    graph = Graph()
    first = graph.relu(graph.conv("image", "first", (3, 3, 3, 3)))
    output = graph.conv(first, "second", (3, 3, 3, 3))
    graph.nodes[-1].input[1:] = graph.nodes[0].input[1:]
    network = graph.network(output)
    one, two = network.convs
    assert {one.weight, one.bias}.isdisjoint({two.weight, two.bias})
    np.testing.assert_array_equal(network.weights[one.weight], network.weights[two.weight])


def test_a_bias_that_another_kind_of_node_reads_can_be_changed_for_the_convolution_alone() -> None:
    graph = Graph()
    given = graph.conv("image", "conv", (4, 3, 3, 3))
    output = graph.node("InstanceNormalization", [given, graph.constant(np.ones(4)), "conv.bias"], "norm")
    network = graph.network(output)
    (norm,) = [node for node in network.nodes if node.op_type == "InstanceNormalization"]
    assert network.convs[0].bias not in norm.input


@pytest.mark.parametrize("names", ["none", "all the same", "one that numbering would give"])
def test_every_node_has_a_name_of_its_own(names: str) -> None:
    model = tiny_deeplab()
    for node in model.graph.node:
        node.name = "conv" if names == "all the same" else ""
    if names == "one that numbering would give":
        model.graph.node[2].name = "Conv_1"
    network = Network.prepared(model, HEIGHT, WIDTH)
    assert len({node.name for node in network.nodes} - {""}) == len(network.nodes)
    quantises(network)


def pooled_as_pytorch_writes_it(graph: Graph, features: str, channels: int, shape: str) -> str:
    """Image pooling and its way back: a 1×1 map, ConstantOfShape and Expand, Tile."""
    mean = graph.relu(graph.conv(graph.node("GlobalAveragePool", [features], "mean"), "pooled", (channels, channels, 1, 1)))
    ones = numpy_helper.from_array(np.array([1], np.int64))
    four = graph.node("ConstantOfShape", [graph.constant([4], np.int64)], "ones", value=ones)
    return graph.node("Tile", [graph.node("Expand", [mean, four], "wide"), shape], "spread")


@pytest.mark.parametrize("dynamic", [False, True])
def test_shapes_that_pytorchs_image_pooling_computes_are_known(dynamic: bool) -> None:
    graph = Graph()
    features = graph.relu(graph.conv("image", "features", (4, 3, 3, 3)))
    repeats = graph.constant([1, 1, *graph.size], np.int64)
    if dynamic:
        size = [graph.node("Shape", [features], "shape"), graph.constant([2, 3], np.int64)]
        ones = graph.constant([1, 1], np.int64)
        repeats = graph.node("Concat", [ones, graph.node("Gather", size, "size")], "repeats", axis=0)
    pooled = pooled_as_pytorch_writes_it(graph, features, 4, repeats)
    branches = graph.node("Concat", [features, pooled], "branches", axis=1)
    output = graph.conv(branches, "scores", (2, 8, 1, 1))
    network = Network.prepared(graph.model(output, 17, dynamic), *graph.size)
    assert network.shapes["branches"] == (1, 8, *graph.size)
    assert all(name in network.shapes for node in network.nodes for name in node.output)
    assert [conv.name for conv in network.convs] == ["features", "pooled", "scores"]
    quantises(network)


def test_convolutions_in_one_dimension_stay_as_they_are() -> None:
    """Efficient channel attention: a 1-D convolution over the channels' means."""
    graph = Graph()
    features = graph.relu(graph.conv("image", "features", (4, 3, 3, 3)))
    mean = graph.node("GlobalAveragePool", [features], "mean")
    line = graph.node("Reshape", [mean, graph.constant([1, 1, 4], np.int64)], "line")
    mixed = graph.node("Conv", [line, graph.constant(np.ones((1, 1, 3)))], "mixed", pads=[1, 1])
    gate = graph.node("Sigmoid", [graph.node("Reshape", [mixed, graph.constant([1, 4, 1, 1], np.int64)], "back")], "gate")
    network = graph.network(graph.conv(graph.node("Mul", [features, gate], "gated"), "scores", (2, 4, 1, 1)))
    assert [conv.name for conv in network.convs] == ["features", "scores"]
    quantises(network)


def test_a_convolution_whose_bias_is_computed_stays_as_it_is() -> None:
    graph = Graph()
    features = graph.relu(graph.conv("image", "features", (4, 3, 3, 3)))
    mean = graph.node("GlobalAveragePool", [features], "mean")
    bias = graph.node("Reshape", [mean, graph.constant([4], np.int64)], "bias")
    adapted = graph.relu(graph.conv(features, "adapted", (4, 4, 3, 3)))
    graph.nodes[-2].input[2] = bias
    network = graph.network(graph.conv(adapted, "scores", (2, 4, 1, 1)))
    assert [conv.name for conv in network.convs] == ["features", "scores"]
    quantises(network)


def test_multiplications_are_those_of_a_loop_over_the_convolution() -> None:
    """Ones convolved with ones count them, once padding is part of the map."""
    graph = Graph()
    network = graph.network(graph.conv("image", "conv", (6, 1, 3, 3), rate=2, stride=2, groups=3))
    height, width = graph.size
    padded = np.ones((3, height + 4, width + 4), np.float32)
    without = conv_of(padded.shape[1:], rate=2, stride=2, pads=(0, 0, 0, 0), groups=3)
    assert network.macs(network.convs[0]) == convolved(padded, np.ones((6, 1, 3, 3)), np.zeros(6), without).sum()


def test_weights_that_are_not_finite_are_named() -> None:
    model = tiny_deeplab()
    weight = next(w for w in model.graph.initializer if w.name == "inner.weight")
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, np.inf, np.float32), weight.name))
    with pytest.raises(CheckFailed, match=r"inner\.weight"):
        Network.prepared(model, HEIGHT, WIDTH)


def test_new_weights_of_another_shape_are_a_programs_mistake() -> None:
    network = Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"inner\.weight"):
        network.with_weights({"inner.weight": np.zeros((1, 8, 3, 3))})


def test_new_weights_leave_the_network_they_came_from_alone() -> None:
    network = Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)
    changed = network.with_weights({"inner.weight": np.zeros((8, 8, 3, 3))})
    assert not changed.weights["inner.weight"].any()
    assert network.weights["inner.weight"].any()
    onnx.checker.check_model(changed.model)
