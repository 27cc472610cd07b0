"""Factors never change the function, whatever they are; the chosen ones are the best, and undo what another factor did."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_blocks import BLOCKS, stacked
from calibration_graphs import Graph, Map, noise, run
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.calibration.channels import ChannelGroups, channel_groups
from dlv3deploy.calibration.equalise import cross_layer_equalised, equalised, factors_for
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.placement import place

pytest.importorskip("onnxruntime")
LARGEST = 64.0
Ranges = dict[str, Map]


def random_factors(groups: ChannelGroups, seed: int) -> np.ndarray:
    drawn = np.exp(np.random.default_rng(seed).uniform(-np.log(LARGEST), np.log(LARGEST), len(groups.free)))
    return np.where(groups.free, drawn, 1)


def outputs(network: Network) -> Map:
    return np.concatenate([run(network.model, image)[0] for image in noise(3, network.shapes[network.input][2:])()])


def same_function(one: Network, two: Network) -> None:
    wanted = outputs(one)
    assert np.abs(outputs(two) - wanted).max() <= 1e-4 * np.abs(wanted).max()


def watched(network: Network) -> tuple[Ranges, list[str]]:
    """The largest magnitude of every channel of the tensors that would be quantised, on noise."""
    tensors = place(network.model.graph).tensors
    images = noise(3, network.shapes[network.input][2:])()
    seen = [[np.abs(image) if t == network.input else None for t in tensors] for image in images]
    for image, found in zip(images, seen, strict=True):
        inner = [t for t in tensors if t != network.input]
        values = iter(run(network.model, image, *inner))
        found[:] = [value if value is not None else np.abs(next(values)) for value in found]
    return {t: np.max([found[i] for found in seen], axis=(0, 1, 3, 4)) for i, t in enumerate(tensors)}, tensors


@settings(deadline=None, max_examples=12)
@given(names=st.lists(st.sampled_from(list(BLOCKS)), min_size=1, max_size=3), seed=st.integers(0, 99), clips=st.booleans())
def test_no_choice_of_free_factors_changes_what_a_network_computes(names: list[str], seed: int, clips: bool) -> None:
    graph, output = stacked(names, seed)
    network = graph.network(output)
    groups = channel_groups(network, clips)
    same_function(network, equalised(network, groups, random_factors(groups, seed)))


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("clips", [False, True])
@pytest.mark.parametrize("name", BLOCKS)
def test_equalisation_leaves_every_block_as_it_is(name: str, clips: bool, per_tensor: bool) -> None:
    graph, output = stacked([name])
    network = graph.network(output)
    made, factors = cross_layer_equalised(network, *watched(network), per_tensor, clips)
    same_function(network, made)
    assert any(not np.allclose(by, 1) for by in factors.values())


def test_tensors_are_multiplied_by_the_factors_that_are_told() -> None:
    graph, output = stacked(["ASPP"])
    network = graph.network(output)
    made, factors = cross_layer_equalised(network, *watched(network))
    (image,) = noise(1)()
    before, after = (run(model, image, "block0.joined", "stem.relu") for model in (network.model, made.model))
    for tensor, one, two in zip(("block0.joined", "stem.relu"), before, after, strict=True):
        np.testing.assert_allclose(two, one * factors[tensor].reshape(1, -1, 1, 1), rtol=1e-4, atol=1e-4)


def test_relu6_with_factors_saturates_every_channel_at_its_own_bound() -> None:
    graph = Graph()
    inner = graph.relu6(graph.conv("image", "first", (4, 3, 3, 3)))
    network = graph.network(graph.conv(inner, "second", (2, 4, 1, 1)))
    groups = channel_groups(network, through_clips=True)
    factors = np.ones(len(groups.free))
    factors[groups.labels["first"]] = [0.5, 1, 2, 8]
    large = 50 * noise(1)()[0]
    (found,) = run(equalised(network, groups, factors).model, large, inner)
    np.testing.assert_allclose(found.max(axis=(0, 2, 3)), [3, 6, 12, 48])
    assert (found >= 0).all()


def test_a_relu6_on_a_vector_stays_as_it_is() -> None:
    """A gate made by fully connected layers has no map whose channels could be scaled."""
    graph = Graph()
    features = graph.relu(graph.conv("image", "features", (4, 3, 3, 3)))
    line = graph.node("Flatten", [graph.node("GlobalAveragePool", [features], "mean")], "line")
    gate = graph.relu6(graph.node("Gemm", [line, graph.constant(np.eye(4))], "gemm"))
    gate = graph.node("Reshape", [gate, graph.constant([1, 4, 1, 1], np.int64)], "gate")
    network = graph.network(graph.conv(graph.node("Mul", [features, gate], "gated"), "scores", (2, 4, 1, 1)))
    same_function(network, cross_layer_equalised(network, *watched(network), through_clips=True)[0])


# --- the closed form -------------------------------------------------------------------------------------------------


def pair(read: Map, seed: int = 0) -> tuple[Network, str]:
    """conv → ReLU → conv, where the second reads channel i with weights up to `read[i]`."""
    graph = Graph(seed)
    inner = graph.relu(graph.conv("image", "first", (len(read), 3, 3, 3)))
    network = graph.network(graph.conv(inner, "second", (2, len(read), 1, 1)))
    weight = np.stack([read, -read / 3])[:, :, None, None]
    return network.with_weights({"second.weight": weight}), inner


POSITIVE = st.lists(st.floats(0.05, 20), min_size=4, max_size=4).map(lambda values: np.array(values, np.float32))


@settings(deadline=None, max_examples=20)
@given(read=POSITIVE, held=POSITIVE)
def test_one_activation_and_one_reader_have_the_root_of_their_quotient(read: Map, held: Map) -> None:
    network, inner = pair(read)
    groups = channel_groups(network)
    factors = factors_for(network, groups, {inner: held}, [inner])[groups.labels[inner]]
    wanted = np.sqrt(read / held)
    np.testing.assert_allclose(factors, wanted / np.exp(np.log(wanted).mean()), rtol=0.01)


def test_factors_with_a_scale_per_weight_tensor_make_nagels_ranges_alike() -> None:
    """Nagel et al. 2019, equation 9, has no activations: afterwards outputs of one layer and inputs of the next are equal."""
    network, _ = pair(np.array([0.1, 1, 5, 20], np.float32))
    groups = channel_groups(network)
    factors = factors_for(network, groups, {}, [], per_tensor_weights=True)
    made = equalised(network, groups, factors)
    first, second = (np.abs(made.weights[f"{name}.weight"]) for name in ("first", "second"))
    ratio = first.max(axis=(1, 2, 3)) / second.max(axis=(0, 2, 3))
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.02)


def test_a_depthwise_weight_alone_between_dead_channels_comes_to_rest() -> None:
    """Both its ends see nothing else: each moving all the way would go on for ever."""
    graph = Graph()
    first = graph.relu(graph.conv("image", "first", (256, 3, 1, 1)))
    second = graph.relu(graph.conv(first, "depthwise", (256, 1, 3, 3), groups=256))
    network = graph.network(graph.conv(second, "last", (2, 256, 1, 1)))
    changed = {name: network.weights[name].copy() for name in ("first.weight", "depthwise.weight", "last.weight")}
    changed["first.weight"][0], changed["last.weight"][:, 0] = 0, 0
    changed["depthwise.weight"][0] *= 1000
    network = network.with_weights(changed)
    groups = channel_groups(network)
    made = equalised(network, groups, factors_for(network, groups, {}, [], per_tensor_weights=True))
    logs = np.log(np.abs(made.weights["depthwise.weight"]).max(axis=(1, 2, 3)))
    assert logs[0] == pytest.approx(logs[1:].mean(), abs=0.02)


def test_overlapping_terms_have_the_solution_of_least_squares() -> None:
    """ASPP on a fixed input: branches, their concatenation and the projection that reads it, solved by NumPy's lstsq."""
    graph = Graph(4)
    branches = [graph.relu(graph.conv("image", f"branch{i}", (3, 3, 1, 1))) for i in range(3)]
    joined = graph.node("Concat", branches, "joined", axis=1)
    network = graph.network(graph.conv(joined, "projection", (2, 9, 1, 1)))
    held = np.exp(np.random.default_rng(1).uniform(-3, 3, 9)).astype(np.float32)
    ranges = {"joined": held} | {name: held[3 * i : 3 * i + 3] for i, name in enumerate(branches)}
    read = np.abs(network.weights["projection.weight"]).max(axis=(0, 2, 3))
    terms = [(range(9), held, 1), (range(9), read, -1)]
    terms += [(range(3 * i, 3 * i + 3), held[3 * i : 3 * i + 3], 1) for i in range(3)]
    rows, wanted = [], []
    for number, (channels, values, sign) in enumerate(terms):
        for channel, value in zip(channels, values, strict=True):
            row = np.zeros(9 + len(terms))  # a logarithm per channel, a mean per term
            row[channel], row[9 + number] = sign, -1
            rows.append(row)
            wanted.append(-np.log(value))
    solution = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0][:9]
    groups = channel_groups(network)
    factors = factors_for(network, groups, ranges, [*ranges])[groups.labels["joined"]]
    np.testing.assert_allclose(np.log(factors), solution - solution.mean(), atol=0.02)


def test_a_dead_channel_takes_the_average_of_its_neighbours() -> None:
    network, inner = pair(np.array([1, 4, 0, 2], np.float32))
    groups = channel_groups(network)
    factors = factors_for(network, groups, {inner: np.array([1, 1, 0, 1], np.float32)}, [inner])[groups.labels[inner]]
    alive = np.log(factors[[0, 1, 3]])
    assert np.log(factors[2]) == pytest.approx(alive.mean(), abs=0.01)
    assert alive.std() > 0.1


def test_factors_are_one_on_average_where_nothing_is_fixed() -> None:
    """Also where a channel counts in one term and is dead in another."""
    network, inner = pair(np.array([1, 4, 100, 2], np.float32))
    groups = channel_groups(network)
    factors = factors_for(network, groups, {inner: np.array([1, 1, 0, 3], np.float32)}, [inner])
    assert np.log(factors[groups.labels[inner]]).mean() == pytest.approx(0, abs=1e-6)


def test_depthwise_weights_with_a_scale_per_channel_have_no_say() -> None:
    """Each of their scales covers one input: no factor can make them more alike."""
    graph, output = stacked(["depthwise stack"])
    network = graph.network(output)
    ranges, tensors = watched(network)
    weight = network.weights["block0.depthwise0.weight"] * np.logspace(-2, 2, 8).reshape(-1, 1, 1, 1)
    other = network.with_weights({"block0.depthwise0.weight": weight})
    groups = channel_groups(network)
    one, two = (factors_for(n, groups, ranges, tensors) for n in (network, other))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, factors_for(other, groups, ranges, tensors, per_tensor_weights=True), rtol=0.1)


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("name", BLOCKS)
def test_what_is_equalised_stays_as_it_is(name: str, per_tensor: bool) -> None:
    graph, output = stacked([name])
    once, _ = cross_layer_equalised(graph.network(output), *watched(graph.network(output)), per_tensor)
    _, again = cross_layer_equalised(once, *watched(once), per_tensor)
    for factors in again.values():
        np.testing.assert_allclose(factors, 1, rtol=0.03)


def test_a_network_of_dead_channels_keeps_its_factors_at_one() -> None:
    network, inner = pair(np.zeros(4, np.float32))
    groups = channel_groups(network)
    np.testing.assert_array_equal(factors_for(network, groups, {inner: np.zeros(4, np.float32)}, [inner]), 1)


def test_free_channels_come_to_meet_the_fixed_ones_beside_them() -> None:
    """Where a branch ends in a sigmoid, the other's thousands shrink to its range; without one they would keep their mean."""
    graph = Graph()
    bent = graph.node("Sigmoid", [graph.conv("image", "bent", (3, 3, 1, 1))], "sigmoid")
    free = graph.relu(graph.conv("image", "free", (3, 3, 1, 1)))
    joined = graph.node("Concat", [bent, free], "joined", axis=1)
    network = graph.network(graph.conv(joined, "projection", (2, 6, 1, 1)))
    network = network.with_weights({"projection.weight": np.ones((2, 6, 1, 1))})
    held = np.array([1, 1, 1, 1000, 1000, 1000], np.float32)
    groups = channel_groups(network)
    factors = factors_for(network, groups, {"joined": held}, ["joined"])[groups.labels["joined"]]
    np.testing.assert_allclose(factors, [1, 1, 1, *[1 / np.sqrt(1000)] * 3], rtol=0.02)


# --- twins -----------------------------------------------------------------------------------------------------------


def deeplab(_: int) -> Network:
    return Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)


def of_blocks(*names: str):
    def make(seed: int) -> Network:
        graph, output = stacked(names, seed)
        return graph.network(output)

    return make


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("make", [of_blocks("linear bottlenecks"), of_blocks("ReLU bottlenecks", "ASPP"), deeplab])
def test_the_equalised_twin_is_the_equalised_original_but_for_a_factor_per_tensor(make, per_tensor: bool) -> None:
    """A twin computes the same function with channels multiplied by 1/64 to 64 and their readers divided."""
    original = make(2)
    groups = channel_groups(original)
    twin = equalised(original, groups, random_factors(groups, 3))
    same_function(original, twin)
    one, two = (cross_layer_equalised(network, *watched(network), per_tensor)[0] for network in (original, twin))
    for conv in one.convs:
        weights = one.weights[conv.weight], two.weights[conv.weight]
        ratio = weights[1] / weights[0]
        assert ratio.max() / ratio.min() < 1.04, conv.name


def test_a_branch_that_is_sixty_four_times_the_others_comes_back_to_them() -> None:
    """Its own scale follows any factor; the concatenation's and the projection's do not."""
    original = of_blocks("ASPP")(1)
    groups = channel_groups(original)
    factors = np.ones(len(groups.free))
    factors[groups.labels["block0.atrous3"]] = LARGEST
    twin = equalised(original, groups, factors)
    one, two = (cross_layer_equalised(network, *watched(network))[0] for network in (original, twin))
    ratio = two.weights["block0.projection.weight"] / one.weights["block0.projection.weight"]
    np.testing.assert_allclose(ratio / ratio.mean(), 1, rtol=0.02)
