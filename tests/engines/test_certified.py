"""Rewrites by name, proved before they are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from calibration_graphs import quantized_deeplab
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.graph import fix_input
from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.engines.rewrites import rewrite as module
from dlv3deploy.engines.rewrites.certificate import certify
from dlv3deploy.engines.rewrites.certified import BY_DEFAULT, as_far_as_proved, certificate_of, certified, is_proved, named
from dlv3deploy.engines.rewrites.change import Change

pytest.importorskip("onnxruntime")
SCORES = OutputSpec("scores")


def tiny() -> onnx.ModelProto:
    return fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH))


def test_names_are_put_in_their_order_and_none_is_none() -> None:
    assert named("regions, dead-taps") == ("dead-taps", "regions")
    assert named("none") == ()


@pytest.mark.parametrize("text", ["", "dead-taps,", "regions,taps"])
def test_an_unknown_name_is_told_with_those_that_exist(text: str) -> None:
    with pytest.raises(UserError, match="dead-taps, image-pooling, regions"):
        named(text)


@pytest.mark.parametrize("model", [tiny, quantized_deeplab], ids=["float", "INT8"])
def test_what_changes_is_kept(model) -> None:
    done = certified(model(), BY_DEFAULT, SCORES, "tiny")
    assert [change.rewrite for change in done.changes] == ["image pooling folded"]
    assert "Tile" not in {node.op_type for node in done.model.graph.node}


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """A graph that the rewrite `dead-taps`, as it is now, makes another of."""

    def wrong(graph) -> list[Change]:
        (conv,) = (node for node in graph if node.name == "scores")
        conv.replace_input_with(2, next(node for node in graph if node.name == "projection").inputs[2])
        return [Change("scores", "wrong", "?", 1, 1)]

    model = tiny()
    bias = {w.name: w for w in model.graph.initializer}
    bias["projection.bias"].CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias["scores.bias"]) + 9, "b"))
    bias["projection.bias"].name = "projection.bias"
    monkeypatch.setitem(module.BY_NAME, "dead-taps", wrong)
    return model


def test_a_rewrite_that_changes_results_is_refused(spoiled: onnx.ModelProto) -> None:
    with pytest.raises(CheckFailed, match=r"tiny: after the rewrites dead-taps.*build with --rewrites none"):
        certified(spoiled, ["dead-taps"], SCORES, "tiny")


def test_one_that_nobody_asked_for_is_left_out_and_said(spoiled: onnx.ModelProto, capsys: pytest.CaptureFixture[str]) -> None:
    done = as_far_as_proved(spoiled, BY_DEFAULT, SCORES)
    assert [change.rewrite for change in done.changes] == ["image pooling folded"]
    assert certificate_of(spoiled, SCORES, done).is_exact
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the rewrite dead-taps is left out: outputs differ by")


def small(*nodes: onnx.NodeProto, weights: Sequence[onnx.TensorProto] = ()) -> onnx.ModelProto:
    """From x, 1×2×4×5, to y."""
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2, 4, 5])
    made = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "small", [given], [made], weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)


def test_a_graph_that_fails_only_when_it_is_run_is_no_proof() -> None:
    """ONNX Runtime takes it, and then finds no channel 9."""
    plain = small(onnx.helper.make_node("Relu", ["x"], ["y"]))
    index = onnx.numpy_helper.from_array(np.array([9]), "index")
    wrong = small(onnx.helper.make_node("Gather", ["x", "index"], ["y"], axis=1), weights=[index])
    with pytest.raises(UserError, match="the rewritten graph: cannot be run by ONNX Runtime"):
        certify(plain, wrong, [np.ones((1, 2, 4, 5), np.float32)])


def test_outputs_of_another_shape_are_no_proof() -> None:
    """Also where NumPy would make one of the other."""
    nodes = [onnx.helper.make_node("Relu", ["x"], ["y"]), onnx.helper.make_node("ReduceMean", ["x"], ["y"], axes=[3])]
    found = certify(*map(small, nodes), [np.ones((1, 2, 4, 5), np.float32)])
    assert found.difference == math.inf and not is_proved(found, is_int8=True)


def test_a_graph_that_cannot_be_run_for_a_proof_keeps_its_form(capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny()
    (scores,) = (node for node in model.graph.node if node.name == "scores")
    model.graph.node.append(onnx.helper.make_node("Unknown", [scores.output[0]], ["more"], name="more", domain="elsewhere"))
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    model.graph.output[0].name = "more"
    with pytest.raises(UserError, match="ONNX Runtime"):
        certified(model, BY_DEFAULT, SCORES, "tiny")
    assert not as_far_as_proved(model, BY_DEFAULT, SCORES).changes
    assert "image-pooling is left out: the original graph: cannot be run by ONNX Runtime" in capsys.readouterr().err
