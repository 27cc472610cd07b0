"""What can become one kernel: small Q/DQ graphs of every pattern that TensorRT's documentation shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from calibration_graphs import Graph, quantized_deeplab
from onnx import helper
from tiny_models import HEIGHT, WIDTH

from dlv3deploy.core.graph import fix_input, tensor_shapes
from dlv3deploy.engines.dialect import TENSORRT_RTX
from dlv3deploy.engines.fusion import ELEMENT_BY_ELEMENT, ConvolutionKernel, Fusion, fusion_of
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_options import TensorRTOptions


@dataclass
class QuantizedGraph(Graph):
    """Knows pairs, and convolutions whose data and weights have one."""

    def quantize(self, given: str, scale: float = 0.1) -> str:
        name = f"{given}.q{len(self.nodes)}"
        return self.node("QuantizeLinear", [given, self.constant(scale), self.constant(0, np.int8)], name)

    def dequantize(self, given: str, scale: float = 0.1) -> str:
        return self.node("DequantizeLinear", [given, self.constant(scale), self.constant(0, np.int8)], f"{given}.dq")

    def pair(self, given: str, scale: float = 0.1) -> str:
        return self.dequantize(self.quantize(given, scale), scale)

    def int8_conv(self, given: str, name: str, kernel: int = 3) -> str:
        """A convolution of 3 channels; `given` has a pair already."""
        self.conv(given, name, (3, 3, kernel, kernel))
        conv = self.nodes.pop()
        conv.input[1] = self.pair(conv.input[1])
        self.nodes.append(conv)
        return name

    def fusion(self, output: str) -> Fusion:
        return fusion_of(onnx.shape_inference.infer_shapes(self.model(output, 17)))


def kernels(fusion: Fusion) -> dict[str, ConvolutionKernel]:
    return {kernel.name: kernel for kernel in fusion.convolutions}


def test_convolution_and_activation_between_two_pairs_are_one_kernel() -> None:
    graph = QuantizedGraph()
    first = graph.relu(graph.int8_conv(graph.pair("image"), "first"))
    fusion = graph.fusion(graph.int8_conv(graph.pair(first), "last"))
    assert kernels(fusion)["first"] == ConvolutionKernel("first", True, True, ("Relu",), "")
    assert kernels(fusion)["last"] == ConvolutionKernel("last", True, False, (), "it makes the graph's output")
    assert fusion.others == ("image",)
    assert (fusion.writing_int8, fusion.is_quantized) == (1, True)


def test_a_pair_between_convolution_and_activation_keeps_them_apart() -> None:
    graph = QuantizedGraph()
    first = graph.relu(graph.pair(graph.int8_conv(graph.pair("image"), "first")))
    fusion = graph.fusion(graph.int8_conv(graph.pair(first), "last"))
    assert kernels(fusion)["first"] == ConvolutionKernel("first", True, True, (), "")
    assert fusion.others == ("image", first)


def test_a_float_graph_fuses_as_well_and_quantises_nothing() -> None:
    graph = QuantizedGraph()
    fusion = graph.fusion(graph.relu(graph.conv("image", "only", (3, 3, 3, 3))))
    assert fusion.convolutions == (ConvolutionKernel("only", False, False, ("Relu",), "its data is in floating point"),)
    assert (fusion.others, fusion.is_quantized) == ((), False)


def test_float_weights_make_a_float_convolution() -> None:
    graph = QuantizedGraph()
    only = graph.conv(graph.pair("image"), "only", (3, 3, 3, 3))
    assert kernels(graph.fusion(only))["only"].reason == "its weights are in floating point"


@pytest.mark.parametrize(
    ("skip", "branch", "fused", "writes", "others"),
    [
        (True, False, ("Add", "Relu"), True, ("image",)),  # as the recipe places them
        (True, True, (), True, ("image", "sum.relu")),  # the sum is a kernel of its own
        (False, False, ("Add", "Relu"), False, ("image", "sum.relu")),  # a float input makes the output float
    ],
)
def test_a_residual_sum_runs_in_its_convolution_where_the_skip_alone_has_a_pair(
    skip: bool, branch: bool, fused: tuple[str, ...], writes: bool, others: tuple[str, ...]
) -> None:
    graph = QuantizedGraph()
    image = graph.pair("image")
    stem = graph.node("Resize", [image, "", graph.constant([1, 1, 1, 1])], "stem")  # computes in floating point
    conv = graph.int8_conv(image, "conv")
    inputs = [image if skip else stem, graph.pair(conv) if branch else conv]
    total = graph.relu(graph.node("Add", inputs, "sum"))
    fusion = graph.fusion(graph.int8_conv(graph.pair(total), "last"))
    found = kernels(fusion)["conv"]
    assert (found.fused, found.writes_int8, fusion.others) == (fused, writes, others)
    assert found.reason == ("" if writes else "it adds stem, which is in floating point")


def test_of_two_convolutions_in_front_of_a_sum_the_later_one_does_it_and_the_other_writes_for_it() -> None:
    graph = QuantizedGraph()
    image = graph.pair("image")
    early, late = graph.int8_conv(image, "early", 1), graph.int8_conv(image, "late")
    total = graph.node("Add", [late, early], "sum")
    found = kernels(graph.fusion(graph.int8_conv(graph.pair(total), "last")))
    assert found["early"] == ConvolutionKernel("early", True, False, (), "Add sum reads it in floating point")
    assert found["late"] == ConvolutionKernel("late", True, False, ("Add",), "it adds early, which is in floating point")


@pytest.mark.parametrize(("scales", "others"), [((0.1, 0.1), ("image",)), ((0.1, 0.3), ("image", "joined"))])
def test_a_concat_copies_int8_where_one_scale_holds_for_all_of_it(scales: tuple[float, float], others: tuple[str, ...]) -> None:
    graph = QuantizedGraph()
    image = graph.pair("image")
    branches = [graph.pair(graph.int8_conv(image, f"branch{i}"), scale) for i, scale in enumerate(scales)]
    joined = graph.pair(graph.node("Concat", branches, "joined", axis=1))
    fusion = graph.fusion(graph.node("Relu", [joined], "end"))
    assert fusion.writing_int8 == 2
    names = {"joined" if name.startswith("branch1") else name for name in fusion.others}
    assert names == set(others)


def test_a_pair_behind_a_concat_reaches_back_to_the_convolutions_and_what_else_it_copies_needs_a_kernel() -> None:
    graph = QuantizedGraph()
    image = graph.pair("image")
    branches = [graph.relu(graph.int8_conv(image, f"branch{i}")) for i in range(2)]
    pooled = graph.node("Resize", [image, "", graph.constant([1, 1, 1, 1])], "pooled")
    joined = graph.node("Concat", [*branches, pooled], "joined", axis=1)
    fusion = graph.fusion(graph.node("Relu", [graph.pair(joined)], "end"))
    assert all(kernel.writes_int8 for kernel in fusion.convolutions)
    assert fusion.others == ("image", "pooled")


def test_a_convolution_reads_int8_through_a_max_pool() -> None:
    graph = QuantizedGraph()
    pooled = graph.node("MaxPool", [graph.pair("image")], "pooled", kernel_shape=[3, 3], pads=[1] * 4)
    assert kernels(graph.fusion(graph.int8_conv(pooled, "only")))["only"].reads_int8


def test_a_second_reader_or_scale_makes_the_kernel_write_floating_point() -> None:
    graph = QuantizedGraph()
    first = graph.int8_conv(graph.pair("image"), "first")
    mean = graph.node("ReduceMean", [first], "mean", axes=[2, 3])
    graph.node("Mul", [graph.int8_conv(graph.pair(first), "last"), mean], "end")
    assert kernels(graph.fusion("end"))["first"].reason == "ReduceMean mean reads it in floating point"
    graph = QuantizedGraph()
    first = graph.int8_conv(graph.pair("image"), "first")
    both = [graph.int8_conv(graph.pair(first, scale), f"last{scale}") for scale in (0.1, 0.2)]
    fusion = graph.fusion(graph.node("Add", both, "end"))
    assert kernels(fusion)["first"].reason == "it is quantised with several scales"
    assert fusion.others == ("image", "first", "first")


def test_a_gate_that_waits_for_the_whole_map_is_no_part_of_the_kernel_and_a_hard_swish_is() -> None:
    graph = QuantizedGraph()
    first = graph.int8_conv(graph.pair("image"), "first")
    clipped = graph.relu6(graph.node("Add", [first, graph.constant(3)], "plus"))
    swish = graph.node("Div", [graph.node("Mul", [first, clipped], "product"), graph.constant(6)], "swish")
    gate = graph.conv(graph.node("GlobalAveragePool", [swish], "squeeze"), "gate", (3, 3, 1, 1))
    gated = graph.node("Mul", [swish, graph.node("Sigmoid", [gate], "open")], "gated")
    found = kernels(graph.fusion(graph.int8_conv(graph.pair(gated), "last")))
    assert found["first"].fused == ("Add", "Clip", "Mul", "Div")
    assert found["first"].reason == "GlobalAveragePool squeeze reads it in floating point"
    assert found["gate"].fused == ("Sigmoid",)  # the product is a map, its convolution's result is not


def test_the_recipe_leaves_two_tensors_to_quantise_in_deeplab_and_every_other_convolution_writes_int8() -> None:
    """The image and the pooled branch, which is in floating point; the classifier makes the output."""
    model = fix_input(quantized_deeplab(), (1, 3, HEIGHT, WIDTH))
    fusion = fusion_of(model)
    assert len(fusion.others) == 2
    floats = [kernel for kernel in fusion.convolutions if not kernel.writes_int8]
    pooled = {node.name for node in model.graph.node if tensor_shapes(model.graph).get(node.output[0], ())[2:] == (1, 1)}
    assert [kernel.name in pooled for kernel in floats] == [True, False]
    assert floats[1].reason == "it makes the graph's output"


def test_batch_norm_is_part_of_the_kernel() -> None:
    graph = QuantizedGraph()
    numbers = [graph.constant([value] * 3) for value in (1, 0, 0, 1)]
    normed = graph.relu(graph.node("BatchNormalization", [graph.int8_conv(graph.pair("image"), "first"), *numbers], "norm"))
    fusion = graph.fusion(graph.int8_conv(graph.pair(normed), "last"))
    assert kernels(fusion)["first"] == ConvolutionKernel("first", True, True, ("BatchNormalization", "Relu"), "")
    assert fusion.others == ("image",)


# Two have tests of their own, two are younger than the opset of these graphs.
ELSEWHERE = ("BatchNormalization", "Clip", "Gelu", "Mish")


@pytest.mark.parametrize("kind", [kind for kind in ELEMENT_BY_ELEMENT if kind not in ELSEWHERE])
def test_every_operation_by_element_can_follow_in_the_kernel_once(kind: str) -> None:
    graph = QuantizedGraph()
    first, two = graph.int8_conv(graph.pair("image"), "first"), ("Add", "Div", "Max", "Min", "Mul", "PRelu", "Sub")
    graph.node(kind, [first, graph.constant([0.5])] if kind in two else [first], "after")
    found = kernels(graph.fusion(graph.int8_conv(graph.pair("after"), "last")))
    assert (found["first"].fused, found["first"].writes_int8) == ((kind,), True)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, {}) for kind in ("Identity", "Flatten")),
        ("DepthToSpace", {"blocksize": 1}),
        ("SpaceToDepth", {"blocksize": 1}),
        ("MaxPool", {"kernel_shape": [1, 1]}),
        ("Transpose", {"perm": [0, 1, 3, 2]}),
        ("Concat", {"axis": 1}),
    ],
)
def test_pairs_reach_through_what_only_copies(kind: str, settings: dict[str, Any]) -> None:
    graph = QuantizedGraph()
    copied = graph.node(kind, [graph.int8_conv(graph.pair("image"), "first")], "copied", **settings)
    fusion = graph.fusion(graph.node("Relu", [graph.pair(copied)], "end"))
    assert kernels(fusion)["first"].writes_int8
    assert fusion.others == ("image",)
    again = graph.fusion(graph.node("Softplus", [graph.pair(graph.pair(copied))], "last"))
    assert again.others == ("image",)


def test_one_sum_of_equal_shapes_fuses_and_no_more() -> None:
    graph = QuantizedGraph()
    image = graph.pair("image")
    total = graph.node("Add", [graph.int8_conv(image, "first"), image], "sum")
    graph.node("Add", [graph.relu(total), image], "second sum")
    fusion = graph.fusion(graph.int8_conv(graph.pair("second sum"), "last"))
    assert kernels(fusion)["first"].fused == ("Add", "Relu")
    assert kernels(fusion)["first"].reason == "Add second sum reads it in floating point"
    assert fusion.others == ("image", "second sum")
    graph = QuantizedGraph()
    image = graph.pair("image")
    pooled = graph.pair(graph.node("GlobalAveragePool", [image], "pooled"))
    graph.node("Add", [graph.int8_conv(image, "first"), pooled], "spread")
    assert kernels(graph.fusion(graph.int8_conv(graph.pair("spread"), "last")))["first"].fused == ()


def test_a_product_of_two_maps_is_a_kernel_of_its_own() -> None:
    graph = QuantizedGraph()
    image = graph.pair("image")
    graph.node("Mul", [graph.int8_conv(image, "first"), image], "product")
    found = kernels(graph.fusion(graph.int8_conv(graph.pair("product"), "last")))["first"]
    assert (found.fused, found.reason) == ((), "Mul product reads it in floating point")


def test_two_tensors_cannot_leave_a_kernel_even_at_one_scale() -> None:
    graph = QuantizedGraph()
    first = graph.int8_conv(graph.pair("image"), "first")
    both = [graph.int8_conv(graph.pair(given), f"last {given}") for given in (first, graph.relu(first))]
    found = kernels(graph.fusion(graph.node("Add", both, "end")))["first"]
    assert (found.writes_int8, found.reason) == (False, "several of its results are quantised")


@pytest.mark.parametrize(
    ("zero_point", "scale", "reason"),
    [
        (np.uint8(128), 0.1, "its data is in uint8"),
        (np.uint8(0), 0.1, "its data is in uint8"),
        (None, 0.1, "its data is in uint8"),  # ONNX's default
        (np.int8(5), 0.1, "its data is quantised with a zero point"),
        (np.zeros(3, np.int8), [0.1, 0.1, 0.1], "its data is quantised with several scales"),
        (np.int16(0), 0.1, "its data is in int16"),
        (np.int8(0), 0.1, ""),
    ],
)
def test_int8_is_symmetric_signed_and_has_one_scale_for_data(zero_point: Any, scale: Any, reason: str) -> None:
    graph = QuantizedGraph()
    numbers = [graph.constant(scale), *([graph.constant(zero_point, zero_point.dtype.type)] if zero_point is not None else [])]
    data = graph.node("DequantizeLinear", [graph.node("QuantizeLinear", ["image", *numbers], "q"), *numbers], "data")
    first = kernels(fusion_of(graph.model(graph.relu(graph.int8_conv(data, "first")), 21)))["first"]
    assert (first.reads_int8, first.reason if reason else "") == (not reason, reason)


def test_grids_are_told_apart_by_value_wherever_it_stands() -> None:
    """A zero point of 0 may be left out of DequantizeLinear, and constants may be nodes."""
    graph = QuantizedGraph()
    scale = graph.node("Constant", [], "scale", value_float=0.1)
    given = graph.node("DequantizeLinear", [graph.quantize("image"), scale], "given")
    copied = graph.node("DequantizeLinear", [graph.quantize(graph.node("Identity", [given], "copied")), scale], "again")
    assert graph.fusion(graph.relu(copied)).others == ("image",)


def test_constants_in_a_concat_need_no_kernel_and_what_a_branch_reads_is_read() -> None:
    graph = QuantizedGraph()
    first = graph.int8_conv(graph.pair("image"), "first")
    joined = graph.node("Concat", [first, graph.constant(np.ones((1, 1, *graph.size)))], "joined", axis=1)
    assert graph.fusion(graph.relu(graph.pair(joined))).others == ("image",)
    body = helper.make_graph(
        [helper.make_node("Neg", ["first"], ["negative"])], "body", [], [helper.make_tensor_value_info("negative", 1, None)]
    )
    graph.node("If", [graph.constant(True, np.bool_)], "chosen", then_branch=body, else_branch=body)
    assert kernels(graph.fusion("chosen"))["first"].reason == "If chosen reads it in floating point"


def test_an_unknown_shape_is_said() -> None:
    graph = QuantizedGraph()
    first = graph.relu(graph.int8_conv(graph.pair("image"), "first"))
    model = graph.model(graph.int8_conv(graph.pair(first), "last"), 17)
    del model.graph.value_info[:]
    fusion = fusion_of(model)
    assert kernels(fusion)["first"].reason == "the shape of its result is not known"


@pytest.mark.slow
def test_tensorrt_rtx_fuses_at_least_this_in_floating_point() -> None:
    """Its compiler is the witness: every node that the rules put into a convolution's kernel is in that kernel of its plan."""
    pytest.importorskip("tensorrt_rtx")
    graph = Graph()
    first = graph.relu6(graph.conv("image", "first", (8, 3, 3, 3)))
    branch = graph.conv(graph.relu(graph.conv(first, "second", (8, 8, 3, 3), rate=2)), "third", (8, 8, 1, 1))
    model = graph.model(graph.conv(graph.relu(graph.node("Add", [first, branch], "sum")), "last", (4, 8, 1, 1)), 17)
    model = onnx.shape_inference.infer_shapes(model)
    plan = TensorRTBackend(TENSORRT_RTX, TensorRTOptions(("8.9",))).plan(model.SerializeToString(), "graph")
    compiled = {name: set(kernel.nodes) for kernel in plan.kernels if kernel.is_convolution for name in kernel.nodes}
    for kernel in fusion_of(model).convolutions:
        kinds = [node.op_type for node in model.graph.node if node.name in compiled[kernel.name]]
        assert kinds == ["Conv", *kernel.fused]
