"""Small calibrated INT8 files to fine-tune, as they are and damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx_runs import runtime_scores
from small_runs import shallow_model, small_spec
from tiny_models import tiny_spec, write_tiny

from dlv3deploy.calibration.calibrate import Request, calibrate
from dlv3deploy.core.graph import embedded_spec
from dlv3deploy.core.images import list_images, read_frame
from dlv3deploy.core.preprocess import preprocess
from dlv3deploy.core.spec import ModelSpec, OutputSpec
from dlv3deploy.train.export import ExportedModel, to_onnx


def images_of(data: Path) -> list[Path]:
    return list_images(data / "train" / "images")


def calibrated(folder: Path, data: Path, float_model: Path, method: str = "min-max", **options: Any) -> Path:
    """`model.int8.onnx` and `calibration.json` in `folder`, of a self-describing float model."""
    spec = embedded_spec(onnx.load(str(float_model)), "float")
    assert spec is not None
    int8 = folder / "model.int8.onnx"
    calibrate(Request(float_model, spec, images_of(data), method, **options), int8, folder / "calibration.json")
    return int8


def write_decided(path: Path, data: Path) -> Path:
    """A tiny model whose masks hold all classes, with scores far apart: labels like its masks teach it nothing."""
    write_tiny(path)
    for name in ("scores.weight", "scores.bias"):
        changed(path, name, lambda values: values * 20)
    scores = np.concatenate([runtime_scores(onnx.load(str(path)), batch_of(image)) for image in images_of(data)])
    changed(path, "scores.bias", lambda bias: bias - scores.mean((0, 2, 3)))
    return path


def tiny_calibrated(folder: Path, data: Path, method: str = "min-max", **options: Any) -> Path:
    return calibrated(folder, data, write_tiny(folder / "model.onnx"), method, **options)


def write_shallow(path: Path, output: OutputSpec | None = None, dynamic: bool = False) -> Path:
    """An export of our own network: ReLU6, residuals, depthwise and atrous convolutions, ASPP with image pooling."""
    spec = ModelSpec(
        small_spec().classes,
        replace(small_spec().input, dynamic_size=dynamic),
        output or OutputSpec("scores"),
        small_spec().architecture,
    )
    path.write_bytes(to_onnx(ExportedModel(shallow_model(), spec.output).eval(), spec, 17).SerializeToString())
    return path


def changed(path: Path, name_ends: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite every initializer whose name ends so."""
    model = onnx.load(str(path))
    for weight in model.graph.initializer:
        if weight.name.endswith(name_ends):
            values = np.asarray(change(numpy_helper.to_array(weight)), numpy_helper.to_array(weight).dtype)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    path.write_bytes(model.SerializeToString())


def batch_of(image: Path, spec: ModelSpec | None = None) -> np.ndarray:
    return preprocess(read_frame(image), (spec or tiny_spec()).input)[0]
