"""The compiled plan, from what TensorRT-RTX prints and from its builder."""

from __future__ import annotations

import pytest
from calibration_graphs import Graph

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.engines.dialect import TENSORRT, TENSORRT_RTX
from dlv3deploy.engines.plans.plan import Kernel, Tensor
from dlv3deploy.engines.plans.printed import read_plan
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_options import TensorRTOptions


def tensor(name: str, shape: str, kind: str) -> str:
    order = "Strides: [9,3,1], StrideOrder: [2,1,0]"
    return f"{{ Name: {name}, Dimensions: [{shape}], {order}, Datatype: {kind}, Format: (Linear) Row major }}"


def layer(name: str, kind: str, inputs: str = "", constants: str = "", outputs: str = "", nodes: str = "") -> str:
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [{inputs}], Constants: [{constants}], Outputs: [{outputs}], "
        f"TacticName: t_0x1, StreamId: 0, Metadata: {nodes}"
    )


PRINTED = "\n".join(
    (
        "Layers:",
        layer("quantise", "kgen", tensor("x", "1,3,4,6", "Float"), "", tensor("x8", "1,4,4,6", "Int8")),
        layer("__wait", "wait"),
        layer(
            "/conv [a], b_1",
            "correlation",
            f" {tensor('x8', '1,4,4,6', 'Int8')}, {tensor('skip', '1,8,4,6', 'Half')}",
            tensor("w", "8,4,3,3", "Int8") + ", " + tensor("scale", "", "Float"),
            tensor("y", "1,8,4,6", "Half"),
            "[ONNX Layer: /conv/Conv][ONNX Layer: /add/Add]",
        ),
        "",
        "I/O Tensors:",
        "Name: x, IOMode: Input",
    )
)


def test_kernels_have_their_tensors_and_the_nodes_that_they_stand_for() -> None:
    plan = read_plan(["something else", PRINTED], "builder")
    assert plan.kernels[1] == Kernel(
        "/conv [a], b_1",
        "correlation",
        (Tensor("x8", (1, 4, 4, 6), "Int8"), Tensor("skip", (1, 8, 4, 6), "Half")),
        (Tensor("w", (8, 4, 3, 3), "Int8"), Tensor("scale", (), "Float")),
        (Tensor("y", (1, 8, 4, 6), "Half"),),
        ("/conv/Conv", "/add/Add"),
    )
    assert (plan.convolutions, plan.others) == (1, 1)


def test_bytes_moved_are_those_of_activations_at_every_reading_and_writing() -> None:
    assert read_plan([PRINTED], "builder").bytes_moved == 3 * 24 * 4 + 2 * 4 * 24 + 2 * 8 * 24 * 2


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "printed no plan"),
        (["Layers:\n\nI/O Tensors:\n"], "plan without kernels"),
        (["Layers:\nLayer(Reformat): x, Tactic: 0"], "cannot be read: Layer"),
        ([PRINTED.replace("Datatype: Half", "Datatype: Complex")], "unknown type Complex"),
        ([PRINTED.replace("Dimensions: [1,3,4,6]", "Dimensions: [?,3,4,6]")], "tensors that cannot be read"),
    ],
)
def test_another_form_is_an_error_and_no_wrong_figure(messages: list[str], says: str) -> None:
    with pytest.raises(CheckFailed, match=f"builder 9 .*{says}"):
        read_plan(messages, "builder 9")


def test_only_tensorrt_rtx_prints_it() -> None:
    with pytest.raises(UserError, match="ask TensorRT-RTX"):
        TensorRTBackend(TENSORRT).plan(b"", "model.onnx")


@pytest.mark.slow
def test_tensorrt_rtx_prints_what_it_compiled_without_a_gpu() -> None:
    pytest.importorskip("tensorrt_rtx")
    graph = Graph()
    maps = graph.relu(graph.conv("image", "first", (8, 3, 3, 3)))
    model = graph.model(graph.conv(maps, "last", (4, 8, 1, 1)), 17)
    plan = TensorRTBackend(TENSORRT_RTX, TensorRTOptions(("8.9",))).plan(model.SerializeToString(), "graph")
    convolutions = [kernel for kernel in plan.kernels if kernel.is_convolution]
    assert [kernel.nodes for kernel in convolutions] == [("first", "first.relu"), ("last",)]
    assert [kernel.outputs[0].shape for kernel in convolutions] == [(1, 8, *graph.size), (1, 4, *graph.size)]
    assert convolutions[1].inputs == convolutions[0].outputs
    with pytest.raises(UserError, match="refused by tensorrt-rtx"):
        TensorRTBackend(TENSORRT_RTX, TensorRTOptions(("8.9",))).plan(b"no model", "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["Foo", "MaxUnpool"])
def test_an_operator_that_no_layer_does_is_named_with_its_node(operator: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    graph = Graph()
    model = graph.model(graph.node("Relu", [graph.conv("image", "first", (8, 3, 3, 3))], "strange"), 17)
    model.graph.node[-1].op_type = operator
    refusal = (
        rf"model.onnx: is refused by tensorrt-rtx: node strange \({operator}\): there is no layer for this operator; export"
    )
    with pytest.raises(UserError, match=refusal):
        TensorRTBackend(TENSORRT_RTX, TensorRTOptions(("8.9",))).plan(model.SerializeToString(), "model.onnx")
