"""Which method `auto` takes, on networks whose best method is known."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_blocks import stacked
from calibration_graphs import noise
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.calibration.auto import choose_method
from dlv3deploy.calibration.channels import channel_groups
from dlv3deploy.calibration.equalise import equalised
from dlv3deploy.calibration.fidelity import Fidelity, Judge
from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.calibration.weights import PER_CHANNEL, WeightGrid

pytest.importorskip("onnxruntime")


def broken_twin(network: Network) -> Network:
    """The same function with channels multiplied by 1/64 to 64."""
    groups = channel_groups(network)
    factors = np.exp(np.random.default_rng(0).uniform(-np.log(64), np.log(64), len(groups.free)))
    return equalised(network, groups, np.where(groups.free, factors, 1))


def parts(network: Network, images: int = 3) -> tuple[Calibration, Judge]:
    size = network.shapes[network.input][2:]
    return Calibration(network, noise(images, size)), Judge(network.model, noise(2, size, seed=9)())


def test_a_network_whose_channels_differ_is_equalised_without_being_told() -> None:
    calibration, judge = parts(broken_twin(Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)))
    trials = choose_method(calibration, judge, PER_CHANNEL)
    assert trials[0].method.equalise
    plain = max(trial.fidelity.snr_db for trial in trials if not trial.method.equalise)
    assert trials[0].fidelity.snr_db > plain + 10


def test_the_twin_is_judged_as_well_as_the_original() -> None:
    network = Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)
    method = Method("mse", equalise=True, bias=True, rounding=True)
    found = []
    for each in (network, broken_twin(network)):
        calibration, judge = parts(each)
        found.append(judge(calibration.quantise(method).model()).snr_db)
    assert found[1] == pytest.approx(found[0], abs=1.5)


def test_clips_are_passed_where_weights_are_coarse_and_only_there() -> None:
    graph, output = stacked(["linear bottlenecks"])
    calibration, judge = parts(graph.network(output))
    grids = PER_CHANNEL, WeightGrid(8, per_tensor=True), WeightGrid(4)
    tried = {grid: [t.method.clips for t in choose_method(calibration, judge, grid)] for grid in grids}
    assert not any(tried[PER_CHANNEL])
    assert any(tried[WeightGrid(8, per_tensor=True)])
    assert any(tried[WeightGrid(4)])


def test_with_few_bits_a_twin_does_as_well_as_the_original() -> None:
    """Rounded to nearest both are ruins, of which one may score better by chance."""
    network = Network.prepared(tiny_deeplab(), HEIGHT, WIDTH)
    best = []
    for each in (network, broken_twin(network)):
        trials = choose_method(*parts(each), WeightGrid(4))
        best.append(trials[0].fidelity.snr_db)
    assert best[1] > best[0] - 1.5


class Scripted:
    """A calibration and a judge in one, which knows what every method is worth."""

    def __init__(self, worth) -> None:
        self.worth, self.tried = worth, []

    def quantise(self, method: Method):
        self.tried.append(method)
        return self

    def model(self) -> Method:
        return self.tried[-1]

    def __call__(self, method: Method) -> Fidelity:
        return Fidelity(0.0, 1.0, -self.worth(method))


@pytest.mark.parametrize(("bits", "from_the_first"), [(2, True), (4, True), (8, False)])
def test_rounding_is_learned_from_the_first_trial_on_where_bits_are_few(bits: int, from_the_first: bool) -> None:
    script = Scripted(lambda m: m.sequential)
    choose_method(script, script, WeightGrid(bits))
    assert script.tried[-1].sequential
    assert {(method.bias, method.rounding) for method in script.tried[:-1]} == {(from_the_first, from_the_first)}


@pytest.mark.parametrize("bits", [4, 8])
def test_no_method_is_tried_twice(bits: int) -> None:
    script = Scripted(lambda m: -m.sequential)
    choose_method(script, script, WeightGrid(bits))
    assert len(set(script.tried)) == len(script.tried)


def test_the_best_comes_first_and_every_step_is_kept_only_when_it_helps() -> None:
    gains = {"equalise": 5, "valid_taps": 1, "bias": 2, "rounding": -3, "sequential": -1}
    script = Scripted(lambda m: 2 * (m.observer == "mse") + sum(gain for name, gain in gains.items() if getattr(m, name)))
    trials = choose_method(script, script, PER_CHANNEL)
    assert trials[0].method == Method("mse", valid_taps=True, equalise=True, bias=True)
    values = [trial.fidelity.divergence for trial in trials]
    assert values == sorted(values)
    assert len(set(script.tried)) == len(script.tried)


def test_bias_and_rounding_are_tried_together_too() -> None:
    """Biases alone do harm here, both together help."""
    script = Scripted(lambda m: -3 if m.sequential else 5 if m.rounding else -1 if m.bias else 0)
    best = choose_method(script, script, PER_CHANNEL)[0].method
    assert (best.bias, best.rounding) == (True, True)


def test_layers_one_after_another_end_the_search_when_they_help() -> None:
    script = Scripted(lambda m: 9 * m.sequential + 2 * m.bias)
    best = choose_method(script, script, PER_CHANNEL)[0].method
    assert best.sequential
    assert not any(method.bias and not method.sequential for method in script.tried)


def test_minimum_and_maximum_are_not_weighted_by_valid_taps() -> None:
    script = Scripted(lambda m: m.observer == "min-max")
    choose_method(script, script, PER_CHANNEL)
    assert not any(method.valid_taps for method in script.tried)


def test_without_any_time_the_first_method_runs_and_it_is_said_once_that_others_did_not() -> None:
    script, said = Scripted(lambda m: 0), list[str]()
    trials = choose_method(script, script, PER_CHANNEL, 0, said.append)
    assert [trial.method for trial in trials] == script.tried == [Method("min-max")]
    assert len(said) == 1
    assert "budget of 0 s" in said[0]


def test_time_that_is_not_spent_changes_nothing() -> None:
    script, said = Scripted(lambda m: 0), list[str]()
    choose_method(script, script, PER_CHANNEL, 1e6, said.append)
    unlimited = Scripted(lambda m: 0)
    choose_method(unlimited, unlimited, PER_CHANNEL)
    assert script.tried == unlimited.tried
    assert said == []
