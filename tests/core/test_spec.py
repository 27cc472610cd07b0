"""ModelSpec: it survives its text form, and every damaged text is one clear error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from core.json_damage import any_json, damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from dlv3deploy.core.classes import VOC, anonymous_classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture, InputSpec, ModelSpec, OutputSpec, TrainingFacts, check_size, triple

sides = st.integers(1, 10_000)
shares = st.none() | st.floats(0, 1)
numbers = st.floats(-1e6, 1e6)
specs = st.builds(
    ModelSpec,
    classes=st.integers(1, 4).map(anonymous_classes) | st.just(VOC),
    input=st.builds(
        InputSpec,
        height=sides,
        width=sides,
        dynamic_size=st.booleans(),
        dynamic_batch=st.booleans(),
        resize=st.sampled_from(["stretch", "letterbox"]),
        colour_order=st.sampled_from(["rgb", "bgr"]),
        mean=st.tuples(numbers, numbers, numbers),
        std=st.tuples(*[st.floats(1e-6, 1e6)] * 3),
    ),
    output=st.builds(
        OutputSpec,
        kind=st.sampled_from(["scores", "logits", "mask"]),
        coordinates=st.sampled_from(["half-pixel", "align-corners"]),
    ),
    architecture=st.none()
    | st.builds(
        Architecture,
        backbone=st.text(),
        output_stride=st.sampled_from([8, 16, 32]),
        aspp_rates=st.lists(st.integers(1, 60), max_size=4).map(tuple),
        aspp_channels=st.integers(1, 512),
        auxiliary=st.booleans(),
    ),
    training=st.none()
    | st.builds(TrainingFacts, data=st.text(), steps=st.integers(0, 10**9), miou=shares, pixel_accuracy=shares),
    parents=st.dictionaries(st.text(), st.text(), max_size=3),
)

FULL = ModelSpec(
    anonymous_classes(2),
    InputSpec(65, 129),
    OutputSpec("scores"),
    Architecture("resnet50"),
    TrainingFacts("/data", 100, 0.5, 0.9),
    {"checkpoint": "ab12"},
)


@given(specs)
@settings(deadline=None, max_examples=80)
def test_a_spec_survives_its_text(spec: ModelSpec) -> None:
    assert ModelSpec.from_text(spec.to_text(), "file") == spec


@given(damaged(FULL.to_json()))
@settings(deadline=None, max_examples=200)
def test_a_damaged_spec_is_a_spec_or_a_user_error(data: Any) -> None:
    try:
        spec = ModelSpec.from_text(json.dumps(data), "file")
    except UserError:
        return
    assert type(spec.input.height) is int and spec.input.height > 0
    assert type(spec.input.dynamic_size) is bool
    assert all(type(v) is float and v - v == 0 for v in (*spec.input.mean, *spec.input.std)), "finite"
    assert all(type(digest) is str for digest in spec.parents.values())
    assert ModelSpec.from_text(spec.to_text(), "file") == spec


@given(any_json)
@settings(deadline=None, max_examples=100)
def test_any_other_json_is_a_user_error(data: Any) -> None:
    with pytest.raises(UserError, match="^file: "):
        ModelSpec.from_text(json.dumps(data), "file")


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "NaN", "spec", "[" * 100_000, FULL.to_text()[:-9], "1" * 5000])
def test_a_text_that_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^model\.onnx: holds a damaged model description"):
        ModelSpec.from_text(text, "model.onnx")


def test_a_spec_of_a_later_format_is_refused_with_both_formats() -> None:
    with pytest.raises(UserError, match="format 2, this version reads 1"):
        ModelSpec.from_text(json.dumps(FULL.to_json() | {"format": 2}), "file")


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("input", "height", 0),
        ("input", "height", 1.5),
        ("input", "height", True),
        ("input", "height", "65"),
        ("input", "dynamic_size", "no"),
        ("input", "resize", "crop"),
        ("input", "colour_order", ["rgb"]),
        ("input", "mean", [1, 2]),
        ("input", "mean", [1, 2, float("nan")]),
        ("input", "std", [1, 2, 0]),
        ("input", "std", [1, 2, 10**400]),
        ("input", "depth", 3),
        ("output", "kind", "boxes"),
        ("output", "coordinates", "corners"),
        ("architecture", "output_stride", 0),
        ("architecture", "aspp_rates", "612"),
        ("architecture", "aspp_rates", [6, 12.5]),
        ("architecture", "auxiliary", None),
        ("training", "steps", None),
        ("training", "miou", "0.5"),
        ("training", "miou", float("nan")),
        ("parents", "checkpoint", 7),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused(part: str, field: str, value: Any) -> None:
    data = FULL.to_json()
    data[part][field] = value
    with pytest.raises(UserError, match="damaged model description"):
        ModelSpec.from_text(json.dumps(data), "file")


@pytest.mark.parametrize("part", ["architecture", "training"])
@pytest.mark.parametrize("empty", [{}, [], 0, ""])
def test_an_empty_part_is_not_the_same_as_none(part: str, empty: Any) -> None:
    with pytest.raises(UserError, match="damaged model description"):
        ModelSpec.from_text(json.dumps(FULL.to_json() | {part: empty}), "file")


def test_size_and_parents_are_changed_in_a_copy() -> None:
    changed = FULL.at_size(33, 17).made_from(onnx="cd34")
    assert (changed.input.height, changed.input.width) == (33, 17)
    assert changed.parents == {"checkpoint": "ab12", "onnx": "cd34"}
    assert (FULL.input.height, FULL.parents) == (65, {"checkpoint": "ab12"})


@pytest.mark.parametrize("text", ["1,2", "1,2,3,4", "a,b,c", "", "nan,1,2", "1,inf,2", [1, 2]])
def test_what_is_not_three_numbers_is_a_value_error(text: Any) -> None:
    with pytest.raises(ValueError):
        triple(text)


def test_three_numbers_are_read_from_text_or_list() -> None:
    assert triple("1, 2.5,-3") == triple([1, 2.5, -3]) == (1.0, 2.5, -3.0)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_a_side_is_a_multiple_of_the_output_stride_or_one_more(stride: int) -> None:
    for side in range(1, 70):
        if side >= stride and side % stride in (0, 1):
            check_size(side, stride, stride)
            check_size(stride, side, stride)
            continue
        with pytest.raises(UserError) as refused:
            check_size(stride, side, stride)
        assert refused.value.given == f"width {side}"
        for choice in refused.value.remedy.removeprefix("use ").split(" or "):
            check_size(int(choice), int(choice), stride)


def test_the_papers_sizes_are_good() -> None:
    for side in (513, 512, 769, 321):
        check_size(side, side, 16)
