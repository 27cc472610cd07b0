"""Which rows the words of `--methods` mean."""

from __future__ import annotations

import pytest
from quantization_methods import ALL, EVERYTHING, FOR_HARD_MODELS, Method, parse_methods

from dlv3deploy.core.errors import UserError


def test_all_are_the_peers_then_every_step_added_to_the_one_before_then_auto() -> None:
    methods = parse_methods("all")
    assert methods == ALL
    ours = [method.method for method in methods if method.maker == "ours" and not method.marks]
    assert ours == [
        "min-max",
        "mse",
        "mse+valid-taps",
        "mse+valid-taps+equalise",
        "mse+valid-taps+equalise+clips",
        "mse+valid-taps+equalise+clips+bias",
        "mse+valid-taps+equalise+clips+bias+rounding",
        "mse+valid-taps+equalise+clips+bias+rounding+sequential",
        "auto",
    ]
    assert [m.method for m in methods if m.weight_bits == 4] == ["min-max", EVERYTHING, "auto"]
    assert len({method.name for method in methods}) == len({method.folder for method in methods}) == len(methods)


def test_hard_models_get_the_peers_the_plain_method_and_auto() -> None:
    of_peers = ["ort:min-max", "ort:min-max@float-bias", "ort:percentile@by-image", "ort:entropy@by-image"]
    of_peers += ["modelopt:max", "modelopt:entropy"]
    assert [method.name for method in FOR_HARD_MODELS] == [*of_peers, "ours:min-max", "ours:auto", "ours:auto@all-int8"]


def test_groups_and_names_go_together_and_a_row_comes_once() -> None:
    methods = parse_methods("modelopt, ort:min-max,modelopt:max,fp32")
    assert [method.name for method in methods] == ["modelopt:max", "modelopt:entropy", "ort:min-max"]
    assert [method.title for method in methods] == ["ModelOpt max", "ModelOpt entropy", "ONNX Runtime min-max"]


def test_any_method_of_ours_can_be_named() -> None:
    (method,) = parse_methods("ours:entropy+equalise@per-tensor@4-bit")
    assert method == Method("ours", "entropy+equalise", per_tensor=True, weight_bits=4)
    assert method.title == "dlv3deploy entropy+equalise, per-tensor weights, 4-bit weights"
    assert parse_methods(method.name) == (method,)
    (method,) = parse_methods("ours:auto@all-int8")
    assert (method.all_int8, method.title) == (True, "dlv3deploy auto, image pooling too")


@pytest.mark.parametrize("text", ["best", "ort:magic", "ours:", "ours:auto@3-bit", ""])
def test_an_unknown_name_is_refused_with_those_that_exist(text: str) -> None:
    with pytest.raises(UserError, match="use some of all, ort, modelopt, ours"):
        parse_methods(text)
