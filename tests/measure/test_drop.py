"""What a form of a model loses, against mIoU counted by loops over the masks of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_models import HEIGHT, WIDTH, tiny_deeplab, tiny_spec

from dlv3deploy.calibration.exact_engine import ExactEngine
from dlv3deploy.core.datasets import Sample, open_dataset
from dlv3deploy.core.graph import fix_input, simplified
from dlv3deploy.core.images import read_frame
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.measure.drop import labelled_drop, unlabelled_drop

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def samples(scenes: Path) -> tuple[Sample, ...]:
    return open_dataset(scenes, "val").samples[:3]


def model(seed: int) -> onnx.ModelProto:
    return fix_input(simplified(tiny_deeplab(seed=seed)), (1, 3, HEIGHT, WIDTH))


def masks(form: onnx.ModelProto, samples: tuple[Sample, ...]) -> list[np.ndarray]:
    with ExactEngine(form, tiny_spec()) as engine:
        return [Segmenter(engine)(read_frame(sample.image)) for sample in samples]


def miou(found: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Over classes that are in the truth or in what was found."""
    kept = [np.concatenate([mask[t != 255] for mask, t in zip(side, truth, strict=True)]) for side in (found, truth)]
    ious = []
    for number in range(len(tiny_spec().classes)):
        one, other = (side == number for side in kept)
        if (one | other).any():
            ious.append((one & other).sum() / (one | other).sum())
    return float(np.mean(ious))


def test_against_labels_it_is_the_difference_of_two_mious(samples) -> None:
    truth = [sample.read()[1] for sample in samples]
    plain, other = model(0), model(3)
    drop = labelled_drop(plain, tiny_spec(), samples)
    assert drop(plain) == 0
    wanted = miou(masks(plain, samples), truth) - miou(masks(other, samples), truth)
    assert abs(wanted) > 1e-3
    assert drop(other) == pytest.approx(wanted)


def test_without_labels_the_float_model_s_masks_are_the_truth(samples) -> None:
    plain, other = model(0), model(3)
    drop = unlabelled_drop(plain, tiny_spec(), [sample.image for sample in samples])
    assert drop(plain) == 0
    wanted = 1 - miou(masks(other, samples), masks(plain, samples))
    assert wanted > 0.1
    assert drop(other) == pytest.approx(wanted)
