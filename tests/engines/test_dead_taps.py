"""Kernels without their dead taps: the same function, and no smaller kernel would be, by loops over every position."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_convolution import FORMS, graph_of, run
from onnx import TensorProto, helper

from dlv3deploy.core.dilation import Window
from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.rewrites.dead_taps import drop_dead_taps, live_taps
from dlv3deploy.engines.rewrites.rewrite import rewritten

pytest.importorskip("onnxruntime")


def without_dead_taps(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Change]]:
    result, changes = rewritten(model, [drop_dead_taps])
    onnx.checker.check_model(result, full_check=True)
    return result, changes


def kernel_of(model: onnx.ModelProto) -> tuple[int, ...]:
    (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
    return tuple(next(a.ints for a in conv.attribute if a.name == "kernel_shape"))


@settings(deadline=None, max_examples=150)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.sampled_from([(1, 1), (3, 3), (1, 3), (5, 3), (2, 4)]),
    rate=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    stride=st.integers(1, 3),
    before=st.tuples(st.integers(0, 16), st.integers(0, 16)),
    more=st.tuples(st.integers(0, 16), st.integers(0, 16)),
    groups=st.sampled_from([1, 2]),
    form=st.sampled_from(FORMS),
)
def test_any_convolution_computes_what_it_did(size, kernel, rate, stride, before, more, groups, form) -> None:
    reach = [r * (k - 1) + 1 for r, k in zip(rate, kernel, strict=True)]
    after = [max(extra, needed - s - b) for extra, needed, s, b in zip(more, reach, size, before, strict=True)]
    model = graph_of(size, kernel, rate, stride, (*before, *after), groups, form)
    result, changes = without_dead_taps(model)
    wanted, found = run(model), run(result)
    tolerance = 2e-2 if form == "half" else 1e-5
    np.testing.assert_allclose(found, wanted, atol=tolerance * max(1.0, float(np.abs(wanted).max())), rtol=0)
    assert bool(changes) == (kernel_of(result) != kernel)


@given(
    size=st.integers(1, 30),
    kernel=st.integers(1, 7),
    rate=st.integers(1, 40),
    stride=st.integers(1, 3),
    before=st.integers(0, 90),
    after=st.integers(0, 90),
)
def test_no_tap_at_an_end_is_kept_that_reads_nothing_unless_its_padding_would_be_left(
    size: int, kernel: int, rate: int, stride: int, before: int, after: int
) -> None:
    window = Window(size, kernel, rate, stride, before, after)
    reads = [any(0 <= o * stride - before + t * rate < size for o in range(window.outputs)) for t in range(kernel)]
    kept = live_taps(window)
    if not any(reads):
        assert kept == range(kernel)
        return
    assert all(tap in kept for tap in range(kernel) if reads[tap])
    assert reads[kept.start] or before < (kept.start + 1) * rate
    assert reads[kept.stop - 1] or after < (kernel - kept.stop + 1) * rate


@pytest.mark.parametrize(
    ("size", "rate", "kernel"),
    [
        ((33, 33), 36, (1, 1)),  # torchvision's third rate at 520×520 and output stride 16
        ((33, 33), 33, (1, 1)),
        ((33, 33), 32, (3, 3)),
        ((33, 65), 36, (1, 3)),
        ((65, 33), 36, (3, 1)),
        ((23, 30), 24, (1, 3)),
    ],
)
def test_a_rate_as_large_as_a_side_leaves_the_middle_of_that_side(size, rate: int, kernel: tuple[int, int]) -> None:
    result, changes = without_dead_taps(graph_of(size, rate=(rate, rate)))
    assert kernel_of(result) == kernel
    if kernel == (3, 3):
        assert not changes
    else:
        (change,) = changes
        assert change.node == "conv" and change.form == f"{kernel[0]}×{kernel[1]}"
        assert change.macs_before == 6 * 4 * 9 * size[0] * size[1]
        assert change.macs_after == 6 * 4 * kernel[0] * kernel[1] * size[0] * size[1]


@pytest.mark.parametrize("form", ["pair", "integers", "one step"])
def test_pairs_on_weights_keep_their_scales(form: str) -> None:
    result, _ = without_dead_taps(graph_of((9, 9), rate=(12, 12), form=form))
    kinds = [node.op_type for node in result.graph.node]
    assert kinds == (["DequantizeLinear", "Conv"] if form == "integers" else ["QuantizeLinear", "DequantizeLinear", "Conv"])
    assert {"scale", "zero"} <= {w.name for w in result.graph.initializer}
    assert "weight" not in {w.name for w in result.graph.initializer}


def test_weights_that_another_convolution_reads_stay_for_it() -> None:
    model = graph_of((9, 9), rate=(12, 12))
    other = helper.make_node("Conv", ["image", "weight"], ["near"], "near", pads=[1, 1, 1, 1])
    model.graph.node.append(other)
    model.graph.output.append(helper.make_tensor_value_info("near", TensorProto.FLOAT, [1, 6, 9, 9]))
    result, changes = without_dead_taps(onnx.shape_inference.infer_shapes(model))
    assert [change.node for change in changes] == ["conv"]
    np.testing.assert_allclose(run(result), run(model), atol=1e-5)
    assert {tuple(w.dims) for w in result.graph.initializer if len(w.dims) == 4} == {(6, 4, 3, 3), (6, 4, 1, 1)}


def test_weights_that_are_computed_from_the_image_are_left_alone() -> None:
    model = graph_of((9, 9), rate=(12, 12))
    model.graph.input.append(helper.make_tensor_value_info("given", TensorProto.FLOAT, [6, 4, 3, 3]))
    model.graph.node[0].input[1] = "given"
    _, changes = without_dead_taps(model)
    assert changes == []
