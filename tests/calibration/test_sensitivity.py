"""Which convolution makes how much of the error: each by itself, whatever else of the network is quantised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.calibration.fidelity import Judge
from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.int8_network import Quantisation
from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.calibration.sensitivity import sensitivities

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def quantisation(images) -> Quantisation:
    return Calibration(Network.prepared(tiny_deeplab(), HEIGHT, WIDTH), lambda: images).quantise(Method())


def noises(quantisation: Quantisation, images) -> dict[str, float]:
    judge = Judge(quantisation.float_network.model, images)
    return {entry.conv: entry.noise for entry in sensitivities(quantisation, judge)}


def test_no_convolution_is_charged_for_what_a_concatenation_alone_reads(quantisation, images) -> None:
    """A grid far too coarse for one of its inputs says nothing about convolutions."""
    assert "spread" in quantisation.ranges
    coarse = replace(quantisation, ranges={**quantisation.ranges, "spread": Range(-1000.0, 1000.0)})
    assert noises(coarse, images) == noises(quantisation, images)


def test_a_coarse_input_is_charged_to_the_convolution_that_reads_it(quantisation, images) -> None:
    plain = noises(quantisation, images)
    coarse = noises(replace(quantisation, ranges={**quantisation.ranges, "inner.relu": Range(0.0, 100.0)}), images)
    assert coarse["outer"] > 10 * plain["outer"]
    assert {name: noise for name, noise in coarse.items() if name != "outer"} == {
        name: noise for name, noise in plain.items() if name != "outer"
    }
