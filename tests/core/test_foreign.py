"""ONNX files of other programs: what is taken from them, what is assumed and said, and what is refused."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from core.stand_ins import graph_of, spec_with
from onnx import TensorProto, helper

from dlv3deploy.core.classes import CAMVID, VOC, anonymous_classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.foreign import DEFAULT_SIZE, Description, spec_of
from dlv3deploy.core.graph import embed_spec
from dlv3deploy.core.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec


def foreign(result: tuple[Any, ...], given: tuple[Any, ...] = (1, 3, 64, 96), kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    return graph_of([helper.make_node("Identity", ["image"], ["result"])], given, result, result_type=kind)


def described(model: onnx.ModelProto, **description: Any) -> ModelSpec:
    return spec_of(model, Description(**description), "net.onnx")


@pytest.mark.parametrize(
    ("result", "integers", "kind"),
    [
        ((1, 11, 8, 12), False, "scores"),
        ((1, 11, 64, 96), False, "logits"),
        ((1, 11, 65, 97), False, "scores"),
        ((1, 64, 96), True, "mask"),
        ((1, 64, 96), False, "mask"),
        ((1, 1, 64, 96), True, "mask"),  # ArgMax keeps its axis unless it is told not to
        ((1, None, 64, 96), True, "mask"),
        ((1, 11, 8, 12), True, "scores"),  # of a quantised network
    ],
)
def test_the_kind_of_output_is_guessed_from_its_shape(result: tuple[Any, ...], integers: bool, kind: str) -> None:
    model = foreign(result, kind=TensorProto.INT64 if integers else TensorProto.FLOAT)
    assert described(model, classes=CAMVID).output.kind == kind


def test_a_dynamic_output_is_taken_for_scores() -> None:
    assert described(foreign((1, 21, "h", "w"), (1, 3, "H", "W"))).output.kind == "scores"


def test_what_the_options_say_goes_before_every_guess() -> None:
    spec = described(
        foreign((1, 21, 64, 96)), classes=VOC, ignore_index=200, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), output="scores"
    )
    assert (spec.classes.names, spec.classes.ignore_index) == (VOC.names, 200)
    assert (spec.input.mean, spec.input.std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert spec.output.kind == "scores"


def test_everything_assumed_is_said_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    spec = described(foreign((1, 7, 8, 12)))
    assert spec.classes == anonymous_classes(7)
    assert (spec.input.mean, spec.input.std) == (IMAGENET_MEAN, IMAGENET_STD)
    said = capsys.readouterr()
    assert said.out == ""
    for part in ("net.onnx", "output scores", "7 classes without names", "ImageNet's mean and std", "RGB", "stretched"):
        assert part in said.err
    described(foreign((1, 21, 8, 12)), classes=VOC, mean=(0.0, 0.0, 0.0), output="scores")
    said = capsys.readouterr()
    assert "assumed: ImageNet's std, RGB" in said.err


def test_size_and_batch_come_from_the_graph_and_open_ones_have_a_default() -> None:
    fixed = described(foreign((1, 7, 8, 12))).input
    assert (fixed.height, fixed.width, fixed.dynamic_size, fixed.dynamic_batch) == (64, 96, False, False)
    dynamic = described(foreign((None, 7, None, None), (None, 3, None, None))).input
    assert (dynamic.height, dynamic.width) == (DEFAULT_SIZE, DEFAULT_SIZE)
    assert dynamic.dynamic_size and dynamic.dynamic_batch
    half = described(foreign((1, 7, 8, None), (1, 3, 64, None))).input
    assert (half.height, half.width, half.dynamic_size) == (64, DEFAULT_SIZE, True)


@pytest.mark.parametrize("result", [(1, None, 8, 8), (1, 64, 96), (1, 1, 64, 96)])
def test_classes_that_the_graph_does_not_count_must_be_named(result: tuple[Any, ...]) -> None:
    kind = TensorProto.INT64 if result[1] != 1 or len(result) == 4 else TensorProto.FLOAT
    with pytest.raises(UserError, match="--classes voc"):
        described(foreign(result, kind=kind))
    assert described(foreign(result, kind=kind), classes=VOC).classes == VOC


def test_classes_that_do_not_fit_the_graph_are_refused_with_both_counts() -> None:
    with pytest.raises(UserError, match=r"net\.onnx with 21 classes: its output has 11 channels"):
        described(foreign((1, 11, 8, 12)), classes=VOC)


@pytest.mark.parametrize(("result", "output"), [((1, 64, 96), "scores"), ((1, 64, 96), "logits"), ((1, 21, 64, 96), "mask")])
def test_an_output_that_does_not_fit_the_graph_is_refused(result: tuple[Any, ...], output: Any) -> None:
    with pytest.raises(UserError, match=f"with --output {output}: it returns .*leave --output out"):
        described(foreign(result), classes=VOC, output=output)


@pytest.mark.parametrize("std", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0)])
def test_a_std_that_nothing_can_be_divided_by_is_refused(std: Any) -> None:
    with pytest.raises(UserError, match="above 0"):
        described(foreign((1, 7, 8, 12)), std=std)


def test_an_ignore_index_that_is_a_class_is_refused() -> None:
    with pytest.raises(UserError, match="ignore index 3"):
        described(foreign((1, 7, 8, 12)), ignore_index=3)


def test_more_classes_than_a_mask_can_hold_are_refused() -> None:
    with pytest.raises(UserError, match="1 to 255"):
        described(foreign((1, 1000, 8, 12)))


def test_a_file_that_describes_itself_is_believed_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    model, spec = foreign((1, 7, 8, 12)), spec_with(7, 64, 96)
    embed_spec(model, spec)
    assert described(model) == spec
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("option", [{"classes": VOC}, {"ignore_index": 0}, {"mean": (0.0, 0.0, 0.0)}, {"output": "scores"}])
def test_a_file_that_describes_itself_may_not_be_described_again(option: Any) -> None:
    model = foreign((1, 7, 8, 12))
    embed_spec(model, spec_with(7, 64, 96))
    with pytest.raises(UserError, match="describes itself"):
        described(model, **option)
