"""From images to the INT8 network: against NumPy, and that nothing is looked at twice or left in memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from calibration_blocks import stacked
from calibration_graphs import Graph, Map, convolved, noise, run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.calibration import weights
from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.method import Method, parse_method
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.calibration.rounding import DAMPING, DAMPING_FOR_FLOAT_INPUTS, learned_rounding
from dlv3deploy.calibration.weights import PER_CHANNEL, WeightGrid
from dlv3deploy.core.errors import CheckFailed, UserError

pytest.importorskip("onnxruntime")
EVERYTHING = Method("mse", valid_taps=True, equalise=True, bias=True, rounding=True)


@pytest.fixture(scope="module")
def deeplab() -> Network:
    return Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)


def one_layer(rate: int = 5) -> Network:
    graph = Graph(7)
    return graph.network(graph.conv("image", "scores", (5, 3, 3, 3), rate=rate))


class Counted:
    """Images that count how often they are gone through."""

    def __init__(self, images: list[Map]) -> None:
        self.images, self.passes = images, 0

    def __call__(self):
        self.passes += 1
        return iter(self.images)


@settings(deadline=None, max_examples=15)
@given(
    text=st.sampled_from(["min-max", "percentile", "mse+bias", "entropy+valid-taps", "mse+bias+rounding"]),
    bits=st.sampled_from([8, 4]),
    per_tensor=st.booleans(),
    rate=st.sampled_from([1, 5]),
)
def test_one_layers_qdq_model_is_integer_arithmetic_by_loops(text: str, bits: int, per_tensor: bool, rate: int) -> None:
    network, images = one_layer(rate), noise(4)
    found = Calibration(network, images).quantise(parse_method(text, WeightGrid(bits, per_tensor)))
    (conv,) = network.convs
    stored = {w.name: numpy_helper.to_array(w) for w in found.model().graph.initializer}
    input_step, weight_step = stored["image/scale"], stored["scores.weight/scale"].reshape(-1, 1, 1, 1)
    weights = np.clip(np.rint(stored["scores.weight"] / weight_step), -127, 127)
    assert np.abs(weights).max() <= {8: 127, 4: 7}[bits]
    for image in images():
        integers = np.clip(np.rint(image[0] / input_step), -128, 127)
        sums = convolved(integers, weights, np.zeros(5), conv)  # INT32 in a real engine
        wanted = sums * input_step * weight_step.reshape(-1, 1, 1) + stored["scores.bias"].reshape(-1, 1, 1)
        np.testing.assert_allclose(run(found.model(), image)[0][0], wanted, atol=1e-4)


def test_thresholds_hold_so_many_of_the_reads_that_the_convolution_makes() -> None:
    """The percentile of all values that enter products, each as often as it enters one."""
    network = one_layer(rate=9)
    middle = np.ones((13, 17), np.float32)
    middle[4:9, 6:11] = 5
    middle[6, 8] = 50  # read once, a corner four times
    images = [image * middle for image in noise(6)()]
    rows = [sum(0 <= y + shift < 13 for shift in (-9, 0, 9)) for y in range(13)]
    columns = [sum(0 <= x + shift < 17 for shift in (-9, 0, 9)) for x in range(17)]
    reads = np.outer(rows, columns)
    values = np.concatenate([np.repeat(np.abs(image[0]).ravel(), np.tile(reads.ravel(), 3)) for image in images])
    for valid_taps, counted in ((True, values), (False, np.abs(images))):
        found = Calibration(network, lambda: images).quantise(Method("percentile", valid_taps=valid_taps)).ranges["image"]
        wanted = np.quantile(counted, 0.9999, method="inverted_cdf")
        assert max(-found.low, found.high) == pytest.approx(wanted, abs=0.1)


def test_all_branches_of_a_concat_have_the_widest_range(deeplab: Network) -> None:
    found = Calibration(deeplab, noise(2, (HEIGHT, WIDTH))).quantise(Method())
    names = ["pointwise.relu", "atrous.relu", "spread", "branches"]
    largest = max(run(deeplab.model, image, "branches")[0].max() for image in noise(2, (HEIGHT, WIDTH))())
    assert len({found.ranges[name] for name in names}) == 1
    assert found.ranges["branches"] == Range(0.0, pytest.approx(largest, rel=1e-5))


def test_the_mean_of_the_scores_is_kept_where_biases_are_corrected() -> None:
    network, images = one_layer(), noise(8)
    grid = WeightGrid(4, per_tensor=True)
    wanted = np.mean([run(network.model, image)[0].mean(axis=(0, 2, 3)) for image in images()], axis=0)
    moved = []
    for bias in (False, True):
        model = Calibration(network, images).quantise(Method("mse", bias=bias, grid=grid)).model()
        means = np.mean([run(model, image)[0].mean(axis=(0, 2, 3)) for image in images()], axis=0)
        moved.append(np.abs(means - wanted).max())
    assert moved[1] < 1e-4
    assert moved[0] > 10 * moved[1]


def test_learned_rounding_is_for_the_inputs_and_not_for_the_weights() -> None:
    network, images = one_layer(rate=1), noise(8)
    blurred = [sum(np.roll(image, (i, j), (2, 3)) for i in range(3) for j in range(3)) / 9 for image in images()]
    wanted = [run(network.model, image)[0] for image in blurred]
    errors, moves = [], []
    for rounding in (False, True):
        found = Calibration(network, lambda: blurred).quantise(Method(rounding=rounding, bias=True, grid=WeightGrid(4)))
        outputs = [run(found.model(), image)[0] for image in blurred]
        errors.append(np.mean([np.square(a - b).mean() for a, b in zip(outputs, wanted, strict=True)]))
        moves.append(np.square(found.network.weights["scores.weight"] - network.weights["scores.weight"]).sum())
    assert errors[1] < 0.7 * errors[0]
    assert moves[1] > moves[0]


@pytest.mark.parametrize("sequential", [False, True])
def test_rounding_is_damped_for_the_inputs_that_it_was_shown(deeplab: Network, sequential: bool, monkeypatch) -> None:
    """The float network's lack what layers before do; those of the INT8 network have it."""
    seen: list[float] = []

    def rounded(weight: Map, steps: Map, covariance: Map, largest: int, damping: float) -> Map:
        seen.append(damping)
        return learned_rounding(weight, steps, covariance, largest, damping)

    monkeypatch.setattr(weights, "learned_rounding", rounded)
    Calibration(deeplab, noise(2, (HEIGHT, WIDTH))).quantise(Method(bias=True, rounding=True, sequential=sequential))
    assert set(seen) == ({DAMPING} if sequential else {DAMPING_FOR_FLOAT_INPUTS})


@pytest.mark.parametrize("method", [Method(), EVERYTHING], ids=str)
def test_nothing_depends_on_the_order_of_images_but_drawn_positions(deeplab: Network, method: Method) -> None:
    images = noise(5, (HEIGHT, WIDTH))()
    one, two = (Calibration(deeplab, lambda order=order: images[::order]).quantise(method) for order in (1, -1))
    assert one.ranges.keys() == two.ranges.keys()
    for name, found in one.ranges.items():
        assert found.high == pytest.approx(two.ranges[name].high, rel=1e-5)


def test_the_same_images_give_the_same_bytes(deeplab: Network) -> None:
    images = noise(3, (HEIGHT, WIDTH))
    one, two = (
        Calibration(deeplab, images).quantise(EVERYTHING).model().SerializeToString(deterministic=True) for _ in range(2)
    )
    assert one == two


def test_images_are_gone_through_once_for_each_thing_to_know(deeplab: Network) -> None:
    images = Counted(noise(2, (HEIGHT, WIDTH))())
    calibration = Calibration(deeplab, images)
    passes = []
    cheap = ("min-max", "mse", "entropy", "mse+valid-taps", "mse+equalise", "entropy+equalise")
    for text in (*cheap, "mse+bias", "mse+bias+rounding", "mse+bias"):
        before = images.passes
        calibration.quantise(parse_method(text, PER_CHANNEL))
        passes.append(images.passes - before)
    # Histograms; nothing; nothing; weighted ones; channel ranges and histograms; nothing;
    # means; covariances too; and nothing for what is made of these.
    assert passes == [1, 0, 0, 1, 2, 0, 1, 1, 0]


def peak_memory(network: Network, count: int) -> int:
    """In bytes, of arrays that NumPy made; images are made when they are asked for."""

    def images():
        for seed in range(count):
            yield noise(1, (HEIGHT, WIDTH), seed)()[0]

    tracemalloc.start()
    Calibration(network, images).quantise(replace(EVERYTHING, observer="percentile"))  # mse has a table of all filled bins
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_images(deeplab: Network) -> None:
    peak_memory(deeplab, 1)  # imports
    few, many = peak_memory(deeplab, 4), peak_memory(deeplab, 40)
    assert many < few + HEIGHT * WIDTH * 3 * 4 / 2  # half an image


def test_kept_convolutions_are_as_they_were() -> None:
    graph, output = stacked(["ReLU pair"])
    network = graph.network(output)
    found = Calibration(network, noise(2), keep=frozenset({"block0.second"})).quantise(Method("mse", bias=True, rounding=True))
    for name in ("block0.second.weight", "block0.second.bias"):
        np.testing.assert_array_equal(found.network.weights[name], network.weights[name])
        assert f"{name}/quantized" not in {o for node in found.model().graph.node for o in node.output}
    assert "block0.second" in found.placement.kept_float


def test_convolutions_given_back_to_floating_point_have_their_own_weights_and_biases() -> None:
    graph, output = stacked(["ReLU pair"])
    network = graph.network(output)
    found = Calibration(network, noise(2)).quantise(Method("mse", equalise=True, bias=True, rounding=True))
    mixed = found.keeping(["stem", "scores"])
    for conv in mixed.network.convs:
        source = found.float_network if conv.name in ("stem", "scores") else found.network
        for name in (conv.weight, conv.bias):
            np.testing.assert_array_equal(mixed.network.weights[name], source.weights[name])
    assert not np.array_equal(found.network.weights["stem.weight"], found.float_network.weights["stem.weight"])
    assert {"stem", "scores"} <= set(mixed.placement.kept_float)
    assert np.isfinite(run(mixed.model(), noise(1)()[0])[0]).all()


def test_image_pooling_that_became_int8_stays_so_when_others_go_back() -> None:
    network = Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)
    found = Calibration(network, noise(2, (HEIGHT, WIDTH)), pooling=True).quantise(Method())
    assert "pooled" in found.placement.weights
    assert found.keeping([]).placement == found.placement
    assert found.keeping(["stem"]).placement.kept_float == ("stem",)


def test_the_float_network_of_an_equalised_one_computes_what_was_given() -> None:
    graph, output = stacked(["ASPP"])
    network = graph.network(output)
    found = Calibration(network, noise(2)).quantise(EVERYTHING)
    (image,) = noise(1, seed=4)()
    np.testing.assert_allclose(run(found.float_network.model, image)[0], run(network.model, image)[0], rtol=1e-3, atol=1e-4)
    assert not np.allclose(found.float_network.weights["stem.weight"], network.weights["stem.weight"])


@pytest.mark.parametrize("method", [Method(), EVERYTHING], ids=str)
def test_without_an_image_it_says_how_to_give_some(deeplab: Network, method: Method) -> None:
    with pytest.raises(UserError, match="--images"):
        Calibration(deeplab, list).quantise(method)


@pytest.mark.parametrize("method", [Method(), EVERYTHING], ids=str)
def test_an_image_that_is_not_finite_names_a_tensor(deeplab: Network, method: Method) -> None:
    image = np.full((1, 3, HEIGHT, WIDTH), np.nan, np.float32)
    with pytest.raises(CheckFailed, match="holds values that are not finite"):
        Calibration(deeplab, lambda: [image]).quantise(method)


@pytest.mark.parametrize("colour", [0.0, -2.1])
@pytest.mark.parametrize("text", ["min-max", "percentile+equalise", "entropy+bias", "mse+equalise+bias+rounding"])
def test_black_pictures_make_a_model_that_runs(deeplab: Network, text: str, colour: float) -> None:
    image = np.full((1, 3, HEIGHT, WIDTH), colour, np.float32)
    found = Calibration(deeplab, lambda: [image] * 3).quantise(parse_method(text, PER_CHANNEL))
    for given_image in (image, noise(1, (HEIGHT, WIDTH))()[0]):
        assert np.isfinite(run(found.model(), given_image)[0]).all()
