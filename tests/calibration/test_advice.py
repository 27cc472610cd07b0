"""What is advised for a costly layer: the remedy that its facts call for and that the method has not used yet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlv3deploy.calibration.advice import Advised, advise, gain, overall_advice
from dlv3deploy.calibration.layer_facts import GridUse, LayerFacts
from dlv3deploy.calibration.method import Method, parse_method
from dlv3deploy.calibration.output_error import ErrorFacts, Ring
from dlv3deploy.calibration.tensor_facts import TensorFacts
from dlv3deploy.calibration.weights import PER_CHANNEL, WeightGrid

SOUND = ErrorFacts(40.0, 0.01, 0.001, 0, 0.05)
LAYER = LayerFacts("conv", "x", (3, 3), (1, 1), True, 0.05, 1.0, 0.4, GridUse(90.0, 7, 40.0, 46.0), SOUND, SOUND)
TENSOR = TensorFacts("x", 0.0, 6.0, 6.0, 6 / 127, 0.0, 0.0, 40.0, 40.5, (), 0.1, (1.0,))
EVERYTHING = "+".join(["mse", "valid-taps", "equalise", "bias", "rounding"])


def grid(**facts: object) -> LayerFacts:
    return replace(LAYER, grid=replace(LAYER.grid, **facts))


def alone(**facts: object) -> LayerFacts:
    return replace(LAYER, alone=replace(SOUND, **facts))


def bordered(border_db: float) -> LayerFacts:
    return alone(rings=(Ring(0, 0, 100, 4.0, border_db), Ring(1, 5, 300, 9.0, 40.0)))


CASES = {
    "a channel that reaches far": (grid(typical_steps=6.0), TENSOR, Method(), "channel 7", "min-max+equalise"),
    "a grid set by another branch": (
        LAYER,
        replace(TENSOR, threshold=60.0, shares_with=("y", "z")),
        Method(),
        "one reaches 10 times further",
        "min-max+equalise",
    ),
    "shifted means": (alone(shift_share=0.6), TENSOR, Method(), "60% of its own error", "min-max+bias"),
    "saturation": (
        LAYER,
        replace(TENSOR, saturated=0.01, saturation_noise=0.9, best_snr_db=46.0),
        Method("entropy"),
        "1.00% of its input saturates",
        "--method mse",
    ),
    "rare large values": (LAYER, replace(TENSOR, best_snr_db=46.0), Method(), "rare values", "--method mse"),
    "rounded weights": (grid(weights_snr_db=30.0), TENSOR, Method(), "rounding its weights", "min-max+bias+rounding"),
    "one step for all channels": (
        grid(weights_snr_db=20.0),
        TENSOR,
        Method(grid=WeightGrid(8, per_tensor=True)),
        "rounding its weights",
        "--weights per-channel",
    ),
    "few bits": (grid(weights_snr_db=20.0), TENSOR, Method(grid=WeightGrid(4)), "rounding its weights", "--weight-bits"),
    "the border": (bordered(30.0), TENSOR, Method("mse"), "with 4.0 valid taps", "mse+valid-taps"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_cause_has_its_remedy(case: str) -> None:
    layer, tensor, method, cause, remedy = CASES[case]
    found = advise(layer, tensor, method, 1.0)
    assert cause in found.cause
    assert remedy in found.remedy


@pytest.mark.parametrize("case", ["a channel that reaches far", "shifted means", "rounded weights", "the border"])
def test_a_remedy_that_is_in_use_is_not_advised_again(case: str) -> None:
    layer, tensor, _, cause, _ = CASES[case]
    found = advise(layer, tensor, parse_method(EVERYTHING, PER_CHANNEL), 1.0)
    assert cause in found.cause
    assert found.change is None
    assert found.remedy.startswith("alone in floating point (--keep-fp16 conv) it brings +1.0 dB for 5.0%")


def test_of_two_causes_the_one_is_told_that_something_can_be_done_about() -> None:
    both = replace(grid(typical_steps=6.0), alone=replace(SOUND, shift_share=0.6))
    assert "--method min-max+equalise;" in advise(both, TENSOR, Method(), 1.0).remedy
    assert "--method min-max+equalise+bias;" in advise(both, TENSOR, Method(equalise=True), 1.0).remedy


def test_floating_point_is_advised_only_where_it_was_measured_to_help() -> None:
    assert "--keep-fp16" not in advise(LAYER, TENSOR, Method(), 0.1).remedy
    assert "leave it in INT8" in advise(LAYER, TENSOR, Method(), -0.2).remedy
    assert "--keep-fp16 conv" in advise(LAYER, TENSOR, Method(), 2.0).remedy


def test_a_name_is_written_so_that_the_shell_and_the_pattern_read_it_back() -> None:
    from fnmatch import fnmatchcase
    from shlex import split

    name = "block[2]/my conv*"
    text = advise(replace(LAYER, name=name), TENSOR, Method(), 2.0).remedy
    words = split(text[text.index("(") + 1 : text.rindex(")")])
    assert words[0] == "--keep-fp16"
    assert fnmatchcase(name, words[1])
    assert not fnmatchcase("block2/my conv-b", words[1])


def test_a_layer_that_only_amplifies_is_explained() -> None:
    assert "40 dB below the input, is 25 dB below the output" in advise(grid(input_snr_db=25.0), TENSOR, Method(), 2.0).cause
    assert "as good as 8 bits allow" in advise(LAYER, TENSOR, Method(), 2.0).cause


def test_overall_all_steps_that_the_layers_ask_for_make_one_method_and_the_best_bargain_is_named() -> None:
    cases = ("shifted means", "a channel that reaches far")
    asked = [
        Advised(LAYER, advise(CASES[case][0], TENSOR, Method(), gain_db), gain_db)
        for case, gain_db in zip(cases, (3, 1), strict=True)
    ]
    lines = overall_advice(100, Method(), asked, 4.0)
    assert lines == [
        "one run with what the costly layers ask for: --method min-max+equalise+bias",
        "--keep-fp16 conv brings +3.0 dB for 5.0% of the work in floating point",
        "all costly layers in floating point, 10.0% of the work, bring +4.0 dB",
    ]
    assert parse_method(lines[0].rpartition(" ")[2], PER_CHANNEL) == Method(equalise=True, bias=True)


def test_overall_few_images_and_an_error_spread_thinly_are_told() -> None:
    thin = replace(LAYER, noise_share=0.1)
    first, second = overall_advice(12, Method(), [Advised(thin, advise(LAYER, TENSOR, Method(), 0.1), 0.1)], 0.1)
    assert first.startswith("12 images are few")
    assert "spread over many layers" in second


def test_gains_have_one_sign_and_no_negative_zero() -> None:
    assert [gain(value) for value in (1.26, 0.04, -0.04, -1.0)] == ["+1.3 dB", "0.0 dB", "0.0 dB", "−1.0 dB"]
