"""Weights of one output stride at another: the scores are read at the places for which the network learnt to answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import lively_model, small_plan, small_spec
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.postprocess import mask_from_scores
from dlv3deploy.core.preprocess import geometry_of
from dlv3deploy.core.spec import Architecture, Coordinates, InputSpec, OutputSpec
from dlv3deploy.train.checkpoint import load_checkpoint, save_checkpoint
from dlv3deploy.train.export import ExportChoices, export
from dlv3deploy.train.torch_engine import TorchEngine

ARCHITECTURE = Architecture("mobilenet_v2", 16, (2, 4), 8)


def step_scores(side: int, stride: int) -> Tensor:
    """Scores 1×2×n×n of two classes for a picture that is class 1 right of `EDGE`, as a strided network has them.

    Cell i answers for pixel i · stride + 7.5, which half-pixel training at output stride 16 teaches; the difference of the two
    classes falls linearly, so that bilinear interpolation finds the very edge.
    """
    cells = -(-side // stride)
    answers_for = torch.arange(cells) * stride + 7.5
    difference = (answers_for - EDGE).expand(cells, cells)
    return torch.stack([-difference, difference])[None]


EDGE = 83.0


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_an_edge_stays_where_it_is_at_every_output_stride(stride: int) -> None:
    output = OutputSpec("scores").at_output_stride(16, stride)
    scores = step_scores(192, stride)[0].numpy()
    mask = mask_from_scores(scores, geometry_of(192, 192, InputSpec(192, 192)), output)
    expected = np.arange(192) > EDGE
    assert (mask[:, 16:-16] == expected[16:-16]).all()


def test_without_the_shift_the_edge_would_lie_four_pixels_aside() -> None:
    scores = step_scores(192, 8)[0].numpy()
    mask = mask_from_scores(scores, geometry_of(192, 192, InputSpec(192, 192)), OutputSpec("scores"))
    assert int(np.argmax(mask[96])) == EDGE + 1 - 4


def test_aligned_corners_need_no_shift() -> None:
    output = OutputSpec("scores", "align-corners")
    assert output.at_output_stride(16, 8) == output.at_output_stride(8, 32) == output


def test_there_and_back_is_no_shift() -> None:
    there = OutputSpec("scores").at_output_stride(16, 8)
    assert there.shift == -0.5 and there.at_output_stride(8, 16).shift == 0


@pytest.mark.parametrize(
    ("crop", "size", "rule"),
    [
        ((65, 97), (129, 97), "align-corners"),
        ((64, 97), (129, 97), "half-pixel"),
        ((65, 97), (128, 96), "half-pixel"),
        ((64, 96), (128, 96), "half-pixel"),
    ],
)
def test_corners_are_aligned_where_every_side_is_one_more_than_a_multiple(
    crop: tuple[int, int], size: tuple[int, int], rule: Coordinates
) -> None:
    assert small_plan(Path("data"), crop=crop, input=InputSpec(*size)).coordinates == rule


def checkpoint(path: Path, output: OutputSpec) -> Path:
    from dataclasses import replace

    save_checkpoint(path, lively_model(ARCHITECTURE), replace(small_spec(ARCHITECTURE), output=output))
    return path


def test_a_checkpoint_at_another_stride_carries_the_shift_into_its_export(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "model.safetensors", OutputSpec("scores"))
    _, spec = load_checkpoint(path, 8)
    assert spec.output == OutputSpec("scores", shift=-0.5)
    assert TorchEngine.open(path, 8).spec.output == spec.output
    exported, _ = export(path, tmp_path / "model.onnx", ExportChoices(output_stride=8))
    assert exported.output == spec.output
    with pytest.raises(UserError, match="--output mask at output stride 8: .* use --output scores"):
        export(path, tmp_path / "mask.onnx", ExportChoices("mask", output_stride=8))


def test_a_mask_of_aligned_corners_is_exported_by_their_rule(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "model.safetensors", OutputSpec("scores", "align-corners"))
    choices = ExportChoices("logits", size=(65, 97), output_stride=8)
    spec, _ = export(path, tmp_path / "model.onnx", choices)
    assert spec.output == OutputSpec("logits", "align-corners")
    onnxruntime = pytest.importorskip("onnxruntime")
    image = torch.randn(1, 3, 65, 97)
    found = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"image": image.numpy()})[0]
    model: nn.Module = load_checkpoint(path, 8)[0]
    with torch.no_grad():
        expected = interpolate(model(image), (65, 97), mode="bilinear", align_corners=True)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("head", ["decoder", "lraspp"])
def test_scores_on_a_map_of_their_own_stride_are_not_shifted(tmp_path: Path, head: str) -> None:
    backbone = "mobilenet_v3_large" if head == "lraspp" else "mobilenet_v2"
    kind = "lraspp" if head == "lraspp" else "aspp"
    architecture = Architecture(backbone, 16, (2, 4), 8, head=kind, decoder=head == "decoder")  # type: ignore[arg-type]  # chosen texts are str
    save_checkpoint(tmp_path / "model.safetensors", lively_model(architecture), small_spec(architecture))
    assert load_checkpoint(tmp_path / "model.safetensors", 8)[1].output == OutputSpec("scores")
