"""Which channels share a factor and which are fixed, read off small graphs by eye."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from calibration_blocks import BLOCKS, CHANNELS, stacked
from calibration_graphs import Graph
from onnx import TensorProto, helper

from dlv3deploy.calibration.channels import ChannelGroups, channel_groups

Node = Callable[[Graph, str], str]  # from a tensor of 6 channels to another


def groups_around(node: Node, through_clips: bool = False) -> tuple[ChannelGroups, str]:
    """conv → node → conv, and the name of what the node makes."""
    graph = Graph()
    made = node(graph, graph.conv("image", "before", (6, 3, 3, 3)))
    network = graph.network(graph.conv(made, "after", (2, 6, 1, 1)))
    return channel_groups(network, through_clips), made


def is_free(groups: ChannelGroups, tensor: str) -> list[bool]:
    return groups.free[groups.labels[tensor]].tolist()


def _gate(graph: Graph) -> str:
    mean = graph.node("GlobalAveragePool", ["image"], "mean")
    return graph.node("Sigmoid", [graph.conv(mean, "excite", (6, 3, 1, 1))], "gate")


SAME_SIZE: dict[str, Node] = {
    "Relu": lambda graph, x: graph.relu(x),
    "LeakyRelu": lambda graph, x: graph.node("LeakyRelu", [x], "y", alpha=0.2),
    "MaxPool": lambda graph, x: graph.node("MaxPool", [x], "y", kernel_shape=[2, 2]),
    "AveragePool": lambda graph, x: graph.node("AveragePool", [x], "y", kernel_shape=[3, 3], pads=[1] * 4),
    "GlobalAveragePool": lambda graph, x: graph.node("GlobalAveragePool", [x], "y"),
    "ReduceMean": lambda graph, x: graph.node("ReduceMean", [x], "y", axes=[2, 3]),
    "Resize": lambda graph, x: graph.node("Resize", [x, "", graph.constant([1, 1, 2, 2])], "y", mode="linear"),
    "Slice": lambda graph, x: graph.node("Slice", [x, *(graph.constant([v], np.int64) for v in (2, 9, 3))], "y"),
    "a gate of one value a channel": lambda graph, x: graph.node("Mul", [_gate(graph), x], "y"),
}
BENT: dict[str, Node] = {
    "ReLU6": lambda graph, x: graph.relu6(x),
    "HardSwish": lambda graph, x: graph.node("HardSwish", [x], "y"),
    "Sigmoid": lambda graph, x: graph.node("Sigmoid", [x], "y"),
    "Softmax": lambda graph, x: graph.node("Softmax", [x], "y", axis=1),
    "InstanceNormalization": lambda graph, x: graph.node(
        "InstanceNormalization", [x, graph.constant(np.ones(6)), graph.constant(np.zeros(6))], "y"
    ),
    "a constant added": lambda graph, x: graph.node("Add", [x, graph.constant(np.ones((1, 6, 1, 1)))], "y"),
    "an addend of one channel": lambda graph, x: graph.node("Add", [x, graph.conv("image", "one", (1, 3, 1, 1))], "y"),
    "a mean over channels": lambda graph, x: graph.node("Sub", [x, graph.node("ReduceMean", [x], "m", axes=[1])], "y"),
    "channels in another order": lambda graph, x: graph.node(
        "Slice", [x, *(graph.constant([v], np.int64) for v in (5, -99, 1, -1))], "y"
    ),
    "x · sigmoid(x)": lambda graph, x: graph.node("Mul", [x, graph.node("Sigmoid", [x], "s")], "y"),
    "ConvTranspose": lambda graph, x: graph.node("ConvTranspose", [x, graph.constant(np.ones((6, 6, 2, 2)))], "y"),
}


@pytest.mark.parametrize("name", SAME_SIZE)
def test_what_is_homogeneous_lets_the_factor_of_every_channel_pass(name: str) -> None:
    groups, made = groups_around(SAME_SIZE[name])
    np.testing.assert_array_equal(groups.labels["before"], groups.labels[made])
    assert len(set(groups.labels["before"])) == 6
    assert all(is_free(groups, "before"))


@pytest.mark.parametrize("name", BENT)
def test_what_bends_values_fixes_channels_on_both_sides(name: str) -> None:
    groups, made = groups_around(BENT[name])
    assert not any(is_free(groups, "before"))
    assert not any(is_free(groups, made))


def test_relu6_lets_factors_pass_when_its_bound_may_differ_by_channel() -> None:
    groups, made = groups_around(BENT["ReLU6"], through_clips=True)
    np.testing.assert_array_equal(groups.labels["before"], groups.labels[made])
    assert all(is_free(groups, made))


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (1, 6), (0, None), (0, 0)])
def test_a_clip_that_is_no_relu6_bends_whatever_is_asked_for(low: float, high: float | None) -> None:
    bounds = [low] if high is None else [low, high]
    groups, made = groups_around(
        lambda graph, x: graph.node("Clip", [x, *map(graph.constant, bounds)], "y"), through_clips=True
    )
    assert not any(is_free(groups, made))


def test_the_input_and_the_output_are_fixed() -> None:
    graph = Graph()
    groups = channel_groups(graph.network(graph.relu(graph.conv("image", "conv", (6, 3, 3, 3)))))
    assert not groups.free.any()


def test_both_sides_of_an_add_share_their_factors() -> None:
    groups, made = groups_around(lambda graph, x: graph.node("Add", [x, graph.conv("image", "side", (6, 3, 1, 1))], "y"))
    assert groups.labels["before"].tolist() == groups.labels["side"].tolist() == groups.labels[made].tolist()
    assert all(is_free(groups, made))


def test_one_fixed_side_of_an_add_fixes_the_other() -> None:
    def node(graph: Graph, x: str) -> str:
        return graph.node("Add", [x, graph.node("Sigmoid", [graph.conv("image", "side", (6, 3, 1, 1))], "s")], "y")

    groups, _ = groups_around(node)
    assert not any(is_free(groups, "before"))
    assert not any(is_free(groups, "side"))


def test_channels_of_a_concat_are_those_of_its_inputs_in_order() -> None:
    graph = Graph()
    first, second = graph.conv("image", "first", (2, 3, 1, 1)), graph.conv("image", "second", (3, 3, 1, 1))
    joined = graph.node("Concat", [second, first, second], "joined", axis=1)
    groups = channel_groups(graph.network(graph.conv(joined, "after", (2, 8, 1, 1))))
    one, two = groups.labels["first"].tolist(), groups.labels["second"].tolist()
    assert groups.labels["joined"].tolist() == [*two, *one, *two]
    assert len({*one, *two}) == 5
    assert all(is_free(groups, "joined"))


def test_a_concat_below_the_other_instead_of_behind_it_fixes_both() -> None:
    groups, _ = groups_around(lambda graph, x: graph.node("Concat", [x, x], "y", axis=2))
    assert not any(is_free(groups, "before"))


def test_reading_a_shape_fixes_nothing() -> None:
    """A graph of any size asks for it; what it asks of is not bent by that."""
    graph = Graph()
    before = graph.conv("image", "before", (6, 3, 3, 3))
    graph.node("Shape", [before], "shape")
    network = graph.network(graph.conv(graph.node("Relu", [before], "y"), "after", (2, 6, 1, 1)))
    network.model.graph.node.append(helper.make_node("Shape", [before], ["again"], name="again"))
    assert all(is_free(channel_groups(type(network)(network.model)), "before"))


def test_what_the_branches_of_an_if_read_is_fixed() -> None:
    def branch(name: str, kind: str) -> helper.GraphProto:
        shape = [1, 6, *Graph().size]
        result = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        return helper.make_graph([helper.make_node(kind, ["inside"], [name])], name, [], [result])

    def node(graph: Graph, x: str) -> str:
        graph.node("Relu", [x], "inside")
        total = graph.node("ReduceSum", ["image"], "total", keepdims=0)
        positive = graph.node("Greater", [total, graph.constant(0)], "positive")
        return graph.node("If", [positive], "y", then_branch=branch("a", "Sigmoid"), else_branch=branch("b", "Exp"))

    groups, _ = groups_around(node)
    assert not any(is_free(groups, "before"))


def test_a_large_constant_that_was_not_folded_is_no_obstacle() -> None:
    def node(graph: Graph, x: str) -> str:
        height, width = graph.size
        column = graph.constant(np.ones((1, 1, height, 1)))
        wide = graph.node("Expand", [column, graph.constant([1, 6, height, 4000], np.int64)], "wide")
        cut = graph.node("Slice", [wide, *(graph.constant([v], np.int64) for v in (0, width, 3))], "cut")
        return graph.node("Add", [x, cut], "y")

    groups_around(node)


FREE_GROUPS = {  # beside the stem's six
    "ReLU pair": 8 + CHANNELS,
    "depthwise stack": 3 * 8 + CHANNELS,
    "linear bottlenecks": CHANNELS + CHANNELS,  # the stream, the last convolution
    "ReLU bottlenecks": 2 * 2 * 8,  # the stream is the stem's
    "grouped": 8 + CHANNELS,
    "pooled and resized": CHANNELS,
    "squeeze and excitation": CHANNELS + 4,  # the convolution, the squeezed; not gates nor swish
    "ASPP": 16 + CHANNELS,
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_has_as_many_free_factors_as_counted_by_hand(name: str) -> None:
    graph, output = stacked([name])
    assert channel_groups(graph.network(output)).free.sum() == CHANNELS + FREE_GROUPS[name]
