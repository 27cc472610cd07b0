from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_models import HEIGHT, WIDTH, GraphWriter, tiny_deeplab

from dlv3deploy.calibration.placement import Placement, place
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import fix_input


@pytest.fixture(scope="module")
def placement() -> Placement:
    return place(fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH)).graph)


def test_every_convolution_on_a_map_is_quantised_with_its_weights(placement: Placement) -> None:
    assert set(placement.weights) == {"stem", "inner", "outer", "pointwise", "atrous", "projection", "scores"}
    assert placement.reads["inner"] == ("stem.relu",)
    assert placement.weights["atrous"] == "atrous.weight"


def test_image_pooling_stays_in_floating_point(placement: Placement) -> None:
    assert placement.kept_float == ("pooled",)
    assert "mean" not in placement.tensors


def test_the_skipped_input_of_a_residual_add_has_a_pair_and_its_convolution_s_output_none(placement: Placement) -> None:
    assert placement.reads["joined"] == ("stem.relu",)
    assert "outer" not in placement.tensors


def two_paths(writer: GraphWriter, first: str, second: str) -> Placement:
    total = writer.relu(writer.node("Add", [first, second], "total"))
    return place(writer.model(writer.conv(total, "last", (2, 4, 1, 1)), 17).graph)


@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_convolutions_before_an_add_the_one_with_more_behind_it_is_fused(swapped: bool) -> None:
    writer = GraphWriter()
    stem = writer.relu(writer.conv("image", "stem", (4, 3, 3, 3)))
    deep = writer.conv(writer.relu(writer.conv(stem, "inner", (4, 4, 3, 3))), "deep", (4, 4, 3, 3))
    shortcut = writer.conv(stem, "shortcut", (4, 4, 1, 1))
    inputs = (shortcut, deep) if swapped else (deep, shortcut)
    assert two_paths(writer, *inputs).reads["total"] == ("shortcut",)


def test_only_a_convolution_that_makes_the_whole_sum_is_fused_with_it() -> None:
    """A pooled vector that is added to a map: its convolution comes later, stays in floating point, and cannot do the sum."""
    writer = GraphWriter()
    stem = writer.relu(writer.conv("image", "stem", (4, 3, 3, 3)))
    pooled = writer.conv(writer.node("GlobalAveragePool", [stem], "mean"), "pooled", (4, 4, 1, 1))
    deeper = writer.conv(writer.relu(pooled), "deeper", (4, 4, 1, 1))
    assert two_paths(writer, writer.conv(stem, "map", (4, 4, 3, 3)), deeper).reads["total"] == ("deeper",)


def test_an_add_of_what_others_read_too_has_pairs_on_both_inputs() -> None:
    writer = GraphWriter()
    stem = writer.conv("image", "stem", (4, 3, 3, 3))
    again = writer.relu(writer.conv(writer.relu(stem), "again", (4, 4, 3, 3)))
    assert two_paths(writer, stem, again).reads["total"] == ("stem", "again.relu")


def test_a_convolution_whose_result_leaves_the_graph_too_is_not_fused_with_a_sum() -> None:
    writer = GraphWriter()
    stem = writer.relu(writer.conv("image", "stem", (4, 3, 3, 3)))
    branch = writer.conv(stem, "branch", (4, 4, 3, 3))
    total = writer.relu(writer.node("Add", [stem, branch], "total"))
    model = writer.model(writer.conv(total, "last", (2, 4, 1, 1)), 17)
    assert place(model.graph).reads["total"] == ("stem.relu",)
    model.graph.output.append(helper.make_tensor_value_info("branch", TensorProto.FLOAT, None))
    assert place(model.graph).reads["total"] == ("stem.relu", "branch")


def test_sums_that_no_convolution_follows_stay_in_floating_point() -> None:
    writer = GraphWriter()
    fine = writer.conv("image", "fine", (2, 3, 1, 1))
    coarse = writer.conv("image", "coarse", (2, 3, 3, 3))
    found = place(writer.model(writer.node("Add", [fine, coarse], "total"), 17).graph)
    assert found.tensors == ["image"]


def test_image_pooling_reads_features_through_their_pair_so_that_they_are_written_once(placement: Placement) -> None:
    assert placement.reads["mean"] == ("features",)


def test_a_convolution_that_is_kept_reads_what_was_there_before_quantisation() -> None:
    found = place(fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH)).graph, keep={"atrous"})
    assert "atrous" not in found.reads
    assert found.reads["pointwise"] == ("features",)


def test_a_kept_convolution_reads_sums_and_concatenations_as_they_were() -> None:
    graph = fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH)).graph
    found = place(graph, keep={"projection"})
    assert "branches" not in found.reads and not {"pointwise.relu", "atrous.relu", "spread"} & {*found.tensors}
    assert "joined" in found.reads  # which INT8 convolutions read, with a pooling in between
    alone = place(graph, keep={"stem", "inner", "outer", "pointwise", "atrous", "projection"})
    assert alone.tensors == ["projection.relu"]  # what `scores` reads


def test_nothing_is_quantised_between_a_convolution_and_its_activation(placement: Placement) -> None:
    assert "inner" not in placement.tensors  # the convolution's output before ReLU
    assert "scores" not in placement.tensors  # the network's output


def test_a_concat_and_what_it_joins_share_one_scale(placement: Placement) -> None:
    assert frozenset({"pointwise.relu", "atrous.relu", "spread", "branches"}) in placement.shared


def test_max_pooling_passes_its_scale_on(placement: Placement) -> None:
    assert placement.reads["features"] == ("joined.relu",)
    assert frozenset({"joined.relu", "features"}) in placement.shared


def test_groups_with_a_common_tensor_become_one() -> None:
    writer = GraphWriter()
    a = writer.relu(writer.conv("image", "a", (4, 3, 3, 3)))
    b = writer.relu(writer.conv("image", "b", (4, 3, 3, 3)))
    first = writer.node("Concat", [a, b], "first", axis=1)
    second = writer.node("Concat", [first, a], "second", axis=1)
    graph = writer.model(writer.conv(second, "last", (2, 12, 1, 1)), 17).graph
    assert place(graph).shared == (frozenset({"a.relu", "b.relu", "first", "second"}),)


def test_a_quantised_model_is_refused() -> None:
    model = tiny_deeplab()
    model.graph.node.insert(0, onnx.helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]))
    with pytest.raises(UserError, match="quantised already"):
        place(model.graph)


def test_a_graph_without_convolutions_is_refused() -> None:
    writer = GraphWriter()
    graph = writer.model(writer.node("Relu", ["image"], "out"), 17).graph
    with pytest.raises(UserError, match="no convolution"):
        place(graph)


def test_convolutions_to_keep_stay_in_floating_point_with_their_inputs() -> None:
    model = fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH))
    kept = place(model.graph, keep={"stem", "scores"})
    assert {"stem", "scores"} <= set(kept.kept_float)
    assert {"stem", "scores"}.isdisjoint(kept.weights)
    assert {"image", "projection.relu"}.isdisjoint(kept.tensors)


def test_image_pooling_is_quantised_when_asked_for() -> None:
    found = place(fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH)).graph, pooling=True)
    assert found.kept_float == ()
    assert found.reads["pooled"] == ("mean",)


def test_keeping_every_convolution_leaves_nothing_to_do() -> None:
    graph = fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH)).graph
    with pytest.raises(UserError, match="keep fewer"):
        place(graph, keep={node.name for node in graph.node})


def test_a_sum_of_vectors_is_no_residual_add() -> None:
    writer = GraphWriter()
    features = writer.relu(writer.conv("image", "features", (4, 3, 3, 3)))
    line = writer.node("Flatten", [writer.node("GlobalAveragePool", [features], "mean")], "line")
    total = writer.node("Add", [writer.node("Relu", [line], "positive"), line], "total")
    gate = writer.node("Reshape", [total, writer.weight("shape", np.array([1, 4, 1, 1]))], "gate")
    graph = writer.model(writer.conv(writer.node("Mul", [features, gate], "gated"), "last", (2, 4, 1, 1)), 17).graph
    assert "total" not in place(graph).reads
