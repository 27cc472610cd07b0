"""Layers one after another: which share a pass, and that each makes good for what those before it did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibration_blocks import stacked
from calibration_graphs import noise, run
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.calibration.sequential import levels
from dlv3deploy.calibration.weights import WeightGrid

pytest.importorskip("onnxruntime")
ROUNDED = Method(bias=True, rounding=True)
SEQUENTIAL = Method(bias=True, rounding=True, sequential=True)


def test_branches_share_a_level_and_a_level_comes_behind_all_that_leads_to_it() -> None:
    network = Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)
    found = [[conv.name for conv in level] for level in levels(network, network.convs)]
    assert found == [["stem"], ["inner"], ["outer"], ["pointwise", "atrous", "pooled"], ["projection"], ["scores"]]


def test_convolutions_that_stay_float_make_no_level() -> None:
    network = Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)
    ours = [conv for conv in network.convs if conv.name in ("stem", "scores")]
    assert [[conv.name for conv in level] for level in levels(network, ours)] == [["stem"], ["scores"]]


@pytest.mark.parametrize("blocks", [["ReLU pair", "ReLU pair"], ["ReLU bottlenecks", "ASPP"]])
def test_scores_of_coarse_weights_come_nearer_to_the_float_ones(blocks: list[str]) -> None:
    graph, output = stacked(blocks)
    network, images, others = graph.network(output), noise(16), noise(4, seed=7)()
    errors = []
    for method in (ROUNDED, SEQUENTIAL):
        found = Calibration(network, images).quantise(replace(method, grid=WeightGrid(4)))
        model = found.model()
        errors.append(np.mean([np.square(run(model, x)[0] - run(network.model, x)[0]).mean() for x in others]))
    assert errors[1] < errors[0]


def test_weights_stay_on_their_grids_and_means_where_they_were() -> None:
    graph, output = stacked(["ReLU pair"])
    network, images = graph.network(output), noise(8)
    found = Calibration(network, images).quantise(replace(SEQUENTIAL, grid=WeightGrid(4)))
    for conv in found.network.convs:
        integers = found.network.weights[conv.weight] / found.weight_steps[conv.weight].reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)
        assert np.abs(integers).max() <= 7 + 1e-4
    wanted, means = (
        np.mean([run(m, x)[0].mean(axis=(0, 2, 3)) for x in images()], axis=0) for m in (network.model, found.model())
    )
    np.testing.assert_allclose(means, wanted, atol=1e-3)


def test_black_pictures_are_no_obstacle() -> None:
    graph, output = stacked(["ASPP"])
    network = graph.network(output)
    black = np.full((1, 3, *graph.size), -2.1, np.float32)
    model = Calibration(network, lambda: [black] * 3).quantise(SEQUENTIAL).model()
    assert np.isfinite(run(model, noise(1)()[0])[0]).all()
