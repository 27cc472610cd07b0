"""Layers one after another: which share a pass, and that each makes good for what those before it did."""

from __future__ import annotations

import tempfile
from dataclasses import replace

import numpy as np
import pytest
from calibration_blocks import stacked
from calibration_graphs import Graph, noise, run
from onnx import numpy_helper
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.calibration import sequential as module
from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.piecewise import live_bytes
from dlv3deploy.calibration.placement import place
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.calibration.sequential import levels, route
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


@pytest.mark.parametrize("size", [1e-25, 1e-22, 1e-19, 1e16, 1e18])
@pytest.mark.parametrize("method", [ROUNDED, SEQUENTIAL], ids=str)
def test_activations_whose_products_float32_does_not_hold_are_no_obstacle(size: float, method: Method) -> None:
    """A branch that training gave up, or one that a batch norm will scale down: rounding to nearest is left."""
    graph = Graph()
    inner = graph.conv(graph.relu(graph.conv("image", "stem", (4, 3, 3, 3))), "inner", (4, 4, 3, 3))
    graph.weights = [
        numpy_helper.from_array(numpy_helper.to_array(w) * np.float32(size if w.name.startswith("stem") else 1), w.name)
        for w in graph.weights
    ]
    network, images = graph.network(graph.relu(inner)), noise(4)
    found = Calibration(network, images).quantise(method)
    for name, values in found.network.weights.items():
        assert np.isfinite(values).all(), name
    wanted, scores = (run(model, images()[0])[0] for model in (network.model, found.model()))
    assert np.abs(scores - wanted).max() < 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_weights_are_pulled_to_the_least_squares_solution(ridge: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against NumPy on explicit patches: min over w* of |w·(x − mean) − w*·(x̂ − mean)|² + λ|w* − w|²."""
    monkeypatch.setattr(module, "RIDGE", ridge)
    random = np.random.default_rng(3)
    wanted = random.standard_normal((500, 6)) @ random.standard_normal((6, 6))
    found = 0.8 * wanted + 0.3 * random.standard_normal((500, 6)) + 2.0
    weight = random.standard_normal((1, 4, 6))
    x, read = wanted - wanted.mean(0), found - found.mean(0)
    covariance, cross = read.T @ read / 500, weight @ ((x - read).T @ read / 500)
    pulled = module._pulled(weight.astype(np.float32), covariance[None].astype(np.float32), cross.astype(np.float32))
    strength = ridge * np.diag(covariance).mean()
    rows = np.vstack([read / np.sqrt(500), np.sqrt(strength) * np.eye(6)])
    aims = np.vstack([x @ weight[0].T / np.sqrt(500), np.sqrt(strength) * weight[0].T])
    solution = np.linalg.lstsq(rows, aims, rcond=None)[0].T
    np.testing.assert_allclose(pulled[0], solution, rtol=1e-3, atol=1e-4)
    assert np.abs(solution - weight[0]).max() > 0.05


def test_large_maps_are_left_to_be_rounded_alone_when_the_disk_is_small(monkeypatch) -> None:
    network = Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)
    convs = [conv for conv in network.convs if conv.name in place(network.model.graph).weights]
    whole = route(network, convs, 8)
    assert whole.images == 8
    assert whole.convs == {conv.name for conv in convs}
    sizes = live_bytes(network, [[conv.input for conv in level] for level in levels(network, convs)])
    monkeypatch.setattr(module, "MOST_ON_DISK", 2 * max(sizes) * 3)
    fewer = route(network, convs, 8)
    assert len(fewer.levels) < len(whole.levels) or fewer.images < 8
    assert 2 * fewer.images * max(sizes[-len(fewer.levels) :]) <= module.MOST_ON_DISK
    found = Calibration(network, noise(8, (HEIGHT, WIDTH))).quantise(SEQUENTIAL)
    assert np.isfinite(run(found.model(), noise(1, (HEIGHT, WIDTH))()[0])[0]).all()


def test_many_images_are_represented_by_some() -> None:
    network = Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)
    assert route(network, network.convs, 500).images == module.MOST_IMAGES


def test_nothing_stays_on_disk(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    graph, output = stacked(["ReLU pair"])
    Calibration(graph.network(output), noise(2)).quantise(SEQUENTIAL)
    assert list(tmp_path.iterdir()) == []
