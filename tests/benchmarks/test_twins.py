"""Twins compute the same function, and are hard: a test that a network with other channels could not pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from twins import Twin, twin_of

from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.graph import load_onnx

SHARED = Path(__file__).parents[3] / "shared"
MODEL = SHARED / "models" / "deeplabv3_mnv2_camvid.onnx"

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(not MODEL.is_file(), reason="needs the shared models")
FAR_TOO_LARGE = 1e30


def scores(model: bytes, image: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    found: NDArray[np.float32] = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(
        None, {"x": image}
    )[0]
    return found


def test_a_twin_has_the_same_scores_and_other_weights_by_its_seed() -> None:
    model = load_onnx(MODEL)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 360, 480)).astype(np.float32)
    wanted = scores(model.SerializeToString(), image)
    twins = [twin_of(model, 360, 480, Twin(seed, 64)) for seed in (1, 2)]
    for twin in twins:
        assert np.abs(scores(twin.SerializeToString(), image) - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert twins[0].SerializeToString() != twins[1].SerializeToString()
    assert twins[0].SerializeToString() == twin_of(model, 360, 480, Twin(1, 64)).SerializeToString()


def test_its_tensors_span_what_the_factor_says() -> None:
    from dlv3deploy.calibration.network import Network

    plain = Network.prepared(load_onnx(MODEL), 360, 480)
    twin = Network(twin_of(load_onnx(MODEL), 360, 480, Twin(3, 64)))
    ratios = np.concatenate(
        [
            (np.abs(twin.weights[conv.bias]) / np.abs(plain.weights[conv.bias]))[np.abs(plain.weights[conv.bias]) > 1e-6]
            for conv in plain.convs
        ]
    )
    assert 1 / 64 <= ratios.min() * 1.001 < 1 / 32
    assert 32 < ratios.max() <= 64 * 1.001


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_a_twin_that_does_not_compute_the_same_is_refused() -> None:
    with pytest.raises(CheckFailed, match="differs by"):
        twin_of(load_onnx(MODEL), 360, 480, Twin(1, FAR_TOO_LARGE))
