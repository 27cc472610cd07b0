"""Convolutions that read padding mostly, as sub-grids and as regions: the same function, by the products that were promised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_convolution import graph_of, run
from onnx import helper, numpy_helper

from dlv3deploy.core.dilation import ValidTaps, Window
from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.rewrites.regions import split_into_regions
from dlv3deploy.engines.rewrites.rewrite import rewritten
from dlv3deploy.engines.rewrites.sub_grids import regroup_to_sub_grids

pytest.importorskip("onnxruntime")
REWRITES: dict[str, Callable[..., list[Change]]] = {"sub-grids": regroup_to_sub_grids, "regions": split_into_regions}
WEIGHTS = 6 * 4  # of one tap


def changed(model: onnx.ModelProto, rewrite: str) -> tuple[onnx.ModelProto, list[Change]]:
    result, changes = rewritten(model, [REWRITES[rewrite]])
    onnx.checker.check_model(result, full_check=True)
    return result, changes


def products(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of all convolutions, from the shapes in the file."""
    shapes = {w.name: tuple(w.dims) for w in model.graph.initializer}
    values = [*model.graph.value_info, *model.graph.output, *model.graph.input]
    shapes |= {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    return sum(int(np.prod(shapes[conv.input[1]]) * np.prod(shapes[conv.output[0]][2:])) for conv in convs)


@settings(deadline=None, max_examples=80)
@given(
    rate=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    more=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.sampled_from([(3, 3), (3, 3), (1, 3), (3, 1)]),
    form=st.sampled_from(["float", "half", "pair", "integers", "one step"]),
    rewrite=st.sampled_from(list(REWRITES)),
)
def test_a_convolution_computes_what_it_did(rate, more, kernel, form, rewrite: str) -> None:
    size = tuple(r + min(m, r) if k == 3 else 5 for r, m, k in zip(rate, more, kernel, strict=True))
    model = graph_of(size, kernel, rate, form=form)
    result, changes = changed(model, rewrite)
    wanted = run(model)
    tolerance = 2e-2 if form == "half" else 1e-5
    np.testing.assert_allclose(run(result), wanted, atol=tolerance * max(1.0, float(np.abs(wanted).max())), rtol=0)
    for change in changes:
        assert (change.macs_before, change.macs_after) == (products(model), products(result))
        assert change.macs_after < change.macs_before


@pytest.mark.parametrize(("size", "rate"), [((33, 33), 24), ((33, 33), 18), ((23, 30), 18), ((10, 6), 5), ((12, 12), 6)])
def test_regions_make_the_products_of_the_valid_taps_and_no_others(size: tuple[int, int], rate: int) -> None:
    result, (change,) = changed(graph_of(size, rate=(rate, rate)), "regions")
    rows, columns = (Window(side, 3, rate, before=rate, after=rate) for side in size)
    valid = round(ValidTaps(rows, columns).share() * 9 * size[0] * size[1])
    assert change.macs_after == products(result) == WEIGHTS * valid


def test_sub_grids_make_sixteen_products_for_thirty_six() -> None:
    result, (change,) = changed(graph_of((36, 36), rate=(18, 18)), "sub-grids")
    assert change.macs_after * 36 == change.macs_before * 16
    assert [node.op_type for node in result.graph.node].count("Pad") == 0


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize(
    ("size", "rate", "more"),
    [
        ((9, 9), 9, {}),  # dead taps alone
        ((9, 9), 4, {}),  # positions with two neighbours
        ((9, 9), 5, {"stride": 2}),
        ((9, 9), 5, {"groups": 2}),
        ((9, 9), 5, {"pads": (0, 0, 0, 0)}),
        ((9, 9), 5, {"kernel": (5, 5)}),
    ],
)
def test_what_is_of_another_kind_is_left_alone(size: tuple[int, int], rate: int, more: dict[str, Any], rewrite: str) -> None:
    size = (15, 15) if "pads" in more else size
    assert changed(graph_of(size, rate=(rate, rate), **more), rewrite)[1] == []


@pytest.mark.parametrize("rewrite", REWRITES)
def test_an_int8_map_is_moved_as_integers(rewrite: str) -> None:
    model = graph_of((11, 10), rate=(6, 7), form="pair")
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.03), "step"), numpy_helper.from_array(np.int8(0), "none")]
    )
    (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
    conv.input[0] = "image/held"
    for node in (
        helper.make_node("DequantizeLinear", ["image/int8", "step", "none"], ["image/held"], "read"),
        helper.make_node("QuantizeLinear", ["image", "step", "none"], ["image/int8"], "put"),
    ):
        model.graph.node.insert(0, node)
    model = onnx.shape_inference.infer_shapes(model)
    result, changes = changed(model, rewrite)
    assert len(changes) == 1
    np.testing.assert_allclose(run(result), run(model), atol=1e-4)
    kinds = {w.name: w.data_type for w in result.graph.initializer} | {
        v.name: v.type.tensor_type.elem_type for v in result.graph.value_info
    }
    (dense, *_) = (node for node in result.graph.node if node.op_type == "Conv")
    makers = {output: node for node in result.graph.node for output in node.output}
    assert makers[dense.input[0]].op_type == "DequantizeLinear"
    moved = [n for n in result.graph.node if n.op_type in ("Slice", "Reshape", "Transpose", "Pad") and "image/int8" in n.input]
    assert moved and all(kinds[node.output[0]] == onnx.TensorProto.INT8 for node in moved)
