"""How far two graphs are apart, against the difference that was put in."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from one_convolution import graph_of
from onnx import numpy_helper

from dlv3deploy.core.errors import UserError
from dlv3deploy.engines.rewrites.certificate import certify, noise

pytest.importorskip("onnxruntime")
SHAPE = (1, 4, 5, 6)


def test_a_graph_is_as_itself() -> None:
    found = certify(graph_of((5, 6)), graph_of((5, 6)), noise(SHAPE))
    assert (found.inputs, found.difference, found.agreement, found.is_exact) == (2, 0.0, 1.0, True)


def test_what_was_added_to_one_class_is_found() -> None:
    plain, other = graph_of((5, 6)), graph_of((5, 6))
    (bias,) = (w for w in other.graph.initializer if w.name == "bias")
    numbers = numpy_helper.to_array(bias).copy()
    numbers[0] += 100
    bias.CopyFrom(numpy_helper.from_array(numbers, "bias"))
    inputs = list(noise(SHAPE, 3))
    found = certify(plain, other, inputs)
    import onnxruntime

    session = onnxruntime.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])
    scores = [session.run(None, {"image": given})[0] for given in inputs]
    assert found.difference == pytest.approx(100 / max(np.abs(s).max() for s in scores), rel=1e-4)
    assert found.agreement == pytest.approx(np.mean([s.argmax(1) == 0 for s in scores]))
    assert not found.is_exact


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_proves_nothing(broken: float) -> None:
    """Every comparison with NaN is false, so that nothing would be found apart."""
    other = graph_of((5, 6))
    (bias,) = (w for w in other.graph.initializer if w.name == "bias")
    numbers = numpy_helper.to_array(bias).copy()
    numbers[0] = broken
    bias.CopyFrom(numpy_helper.from_array(numbers, "bias"))
    for original in (graph_of((5, 6)), other):
        found = certify(original, other, noise(SHAPE))
        assert found.difference == np.inf and not found.is_exact


def test_the_same_noise_is_made_every_time() -> None:
    for one, other in zip(noise(SHAPE), noise(SHAPE), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_onnx_runtime_it_is_said_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"dlv3deploy\[onnxruntime\]"):
        certify(graph_of((5, 6)), graph_of((5, 6)), noise(SHAPE))
