"""Graphs run piece by piece: the same tensors as in one run, nothing twice, and only what is still needed kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from calibration_graphs import Graph, noise
from onnx import helper
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.calibration.collect import Runner
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.piecewise import Walk, live_bytes
from dlv3deploy.calibration.sequential import levels

pytest.importorskip("onnxruntime")
IMAGES = noise(3, (HEIGHT, WIDTH))


@pytest.fixture
def network() -> Network:
    return Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)


@pytest.fixture
def stops(network: Network) -> list[list[str]]:
    """What the convolutions read, level by level."""
    return [list(dict.fromkeys(conv.input for conv in level)) for level in levels(network, network.convs)]


def walk_of(network: Network, folder: Path) -> Walk:
    walk = Walk(folder, network.model)
    for image in IMAGES():
        walk.put(image)
    return walk


def test_every_piece_gives_what_one_run_gives(network: Network, stops: list[list[str]], tmp_path: Path) -> None:
    walk = walk_of(network, tmp_path / "walk")
    for wanted in [*stops, [network.output]]:
        with Runner(network.model, wanted) as whole:
            for image, found in zip(IMAGES(), walk.run(network.model, wanted), strict=True):
                for name, values in whole(image).items():
                    np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


def test_a_tensor_of_whole_numbers_is_handed_from_piece_to_piece(tmp_path: Path) -> None:
    """MaxPool's positions, which MaxUnpool reads behind a convolution, as SegNet has it."""
    graph = Graph(size=(8, 8))
    settings = {"kernel_shape": [2, 2], "strides": [2, 2]}
    graph.nodes.append(helper.make_node("MaxPool", ["image"], ["small", "places"], name="pool", **settings))
    inner = graph.relu(graph.conv("small", "inner", (3, 3, 3, 3)))
    large = graph.node("MaxUnpool", [inner, "places"], "large", **settings)
    network = graph.network(graph.conv(large, "last", (2, 3, 3, 3)))
    walk = Walk(tmp_path / "walk", network.model)
    image = noise(1, graph.size)()[0]
    walk.put(image)
    for wanted in (["small"], ["large"], [network.output]):
        (found,) = walk.run(network.model, wanted)
        with Runner(network.model, wanted) as whole:
            np.testing.assert_allclose(found[wanted[0]], whole(image)[wanted[0]], rtol=1e-5)


def test_what_lies_behind_is_not_run_again(network: Network, stops: list[list[str]], tmp_path: Path) -> None:
    """Weights that change later change nothing that was computed before."""
    walk = walk_of(network, tmp_path / "walk")
    first = [dict(found) for found in walk.run(network.model, stops[3])]
    stem = next(conv for conv in network.convs if conv.name == "stem")
    other = network.with_weights({stem.weight: network.weights[stem.weight] * 2})
    again = list(walk.run(other.model, stops[3]))
    for name in stops[3]:
        np.testing.assert_array_equal([found[name] for found in again], [found[name] for found in first])


def test_weights_ahead_may_change(network: Network, stops: list[list[str]], tmp_path: Path) -> None:
    walk = walk_of(network, tmp_path / "walk")
    list(walk.run(network.model, stops[-1]))
    scores = next(conv for conv in network.convs if conv.name == "scores")
    other = network.with_weights(
        {scores.weight: network.weights[scores.weight] * 2, scores.bias: network.weights[scores.bias] * 2}
    )
    with Runner(network.model, [scores.output]) as plain:
        for image, found in zip(IMAGES(), walk.run(other.model, [scores.output]), strict=True):
            np.testing.assert_allclose(found[scores.output], 2 * plain(image)[scores.output], rtol=1e-4, atol=1e-5)


def test_the_disk_holds_what_is_still_to_be_read_and_no_more(network: Network, stops: list[list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    walk = walk_of(network, folder)
    for wanted, told in zip(stops, live_bytes(network, stops), strict=True):
        list(walk.run(network.model, wanted))
        files = list(folder.iterdir())
        headers = 128 * len(files)
        assert sum(file.stat().st_size for file in files) - headers == told * walk.images
        assert len(files) == len(walk.live) * walk.images
