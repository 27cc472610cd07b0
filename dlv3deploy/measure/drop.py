"""How much mIoU another form of a model loses against the float one, on labelled images or without any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.calibration.exact_engine import ExactEngine
from dlv3deploy.core.datasets import Sample
from dlv3deploy.core.images import read_frame
from dlv3deploy.core.metrics import ConfusionMatrix
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.measure.evaluate import evaluate

if TYPE_CHECKING:
    from onnx import ModelProto

Drop = Callable[["ModelProto"], float]


def labelled_drop(model: ModelProto, spec: ModelSpec, samples: Sequence[Sample]) -> Drop:
    """mIoU of the float `model` minus that of another one, against labels; 0 to 1, negative where the other is better."""

    def miou(form: ModelProto) -> float:
        with ExactEngine(form, spec) as engine:
            return evaluate(Segmenter(engine), samples).miou

    reference = miou(model)
    return lambda form: reference - miou(form)


def unlabelled_drop(model: ModelProto, spec: ModelSpec, images: Sequence[Path]) -> Drop:
    """1 minus the mIoU of another model's masks against those of the float `model`, which stand for the truth.

    Larger than the loss against labels as a rule: where the float model errs, any change counts as a loss.
    """
    with ExactEngine(model, spec) as engine:
        segmenter = Segmenter(engine)
        masks = [segmenter(read_frame(path)) for path in images]

    def drop(form: ModelProto) -> float:
        matrix = ConfusionMatrix(spec.classes)
        with ExactEngine(form, spec) as engine:
            segmenter = Segmenter(engine)
            for path, mask in zip(images, masks, strict=True):
                matrix.collect(segmenter(read_frame(path)), mask)
        return 1 - matrix.compute().miou

    return drop
