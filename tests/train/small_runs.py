"""Runs and networks small enough for a test: 64×96 pixels, eight ASPP channels, a dozen steps."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlv3deploy.core.datasets import open_dataset
from dlv3deploy.core.preprocess import preprocess
from dlv3deploy.core.spec import Architecture, InputSpec, ModelSpec, OutputSpec
from dlv3deploy.scenes import ROAD_SCENE
from dlv3deploy.train.checkpoint import save_checkpoint
from dlv3deploy.train.loop import TrainingResult
from dlv3deploy.train.network import deeplabv3
from dlv3deploy.train.network.deeplabv3 import DeepLabV3
from dlv3deploy.train.network.features import Features
from dlv3deploy.train.network.heads import DeepLabHead
from dlv3deploy.train.network.mobilenet_v2 import InvertedResidual
from dlv3deploy.train.plan import TrainingPlan

SIZE = (64, 96)
SMALL = Architecture("mobilenet_v2", 16, (1, 2, 3), 8)


@dataclass(frozen=True)
class UnbrokenRun:
    """What `small_plan` left when nothing broke it off."""

    folder: Path
    checkpoint: Path
    result: TrainingResult


def small_plan(data: Path, **changes: Any) -> TrainingPlan:
    """Twelve steps with a validation at 4, 8 and 12, in float32 and without worker processes."""
    settings: dict[str, Any] = {
        "data": data,
        "classes": ROAD_SCENE,
        "architecture": SMALL,
        "input": InputSpec(*SIZE),
        "crop": (48, 64),
        "steps": 12,
        "batch_size": 2,
        "validate_every": 4,
        "seed": 3,
        "workers": 0,
        "precision": "32-true",
    }
    return TrainingPlan(**{**settings, **changes})


def lively_model(architecture: Architecture = SMALL, classes: int = len(ROAD_SCENE), seed: int = 0) -> DeepLabV3:
    """A network in evaluation mode that tells places apart; in a fresh one every signal fades to nothing."""
    torch.manual_seed(seed)
    return enlivened(DeepLabV3(architecture, classes))


def enlivened(model: DeepLabV3) -> DeepLabV3:
    """`model` with batch norm that knows its inputs and with classes of equal mean score."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
    with torch.no_grad():
        features = model.train().backbone(images := torch.randn(2, 3, *SIZE))
        model(images)
        if model.aux_classifier is not None:
            model.aux_classifier(features.middle)
        biases = [p for p in model.classifier.parameters() if p.ndim == 1]
        biases[-1] -= model.eval()(images).mean((0, 2, 3))  # no class wins everywhere
    for norm in norms:
        norm.momentum = 0.1
    return model


class ShallowBackbone(nn.Module):
    """One of each kind of layer that the backbones have, output stride 16; trains and exports in a fifth of their time."""

    out_channels, middle_channels, low_channels = 16, 8, 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, 4, padding=3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
        )
        self.blocks = nn.Sequential(
            InvertedResidual(8, 16, stride=2, rate=1, expansion=6), InvertedResidual(16, 16, stride=1, rate=2, expansion=6)
        )

    def forward(self, x: Tensor) -> Features:
        middle = self.stem(x)
        return Features(middle, middle, self.blocks(middle))


def environment(**variables: str) -> dict[str, str]:
    """For a program that a test starts: this checkout's package and the tests' modules, one thread, and `variables`."""
    here = Path(__file__).resolve().parent
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here}", **variables}


@contextmanager
def shallow_backbone() -> Iterator[pytest.MonkeyPatch]:
    """Every network that is built inside has a `ShallowBackbone`; yields the patch, for more of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deeplabv3, "build_backbone", lambda architecture: ShallowBackbone())
        yield patch


def shallow_model() -> DeepLabV3:
    """DeepLabv3 on `ShallowBackbone`, lively."""
    torch.manual_seed(0)
    model = DeepLabV3(SMALL, len(ROAD_SCENE))
    model.backbone = ShallowBackbone()  # type: ignore[assignment]  # in a backbone's place
    model.classifier = DeepLabHead(16, len(ROAD_SCENE), SMALL, 0.5)
    return enlivened(model)


def small_spec(architecture: Architecture = SMALL) -> ModelSpec:
    return ModelSpec(ROAD_SCENE, InputSpec(*SIZE), OutputSpec("scores"), architecture)


def write_lively_checkpoint(path: Path, architecture: Architecture = SMALL) -> Path:
    save_checkpoint(path, lively_model(architecture), small_spec(architecture))
    return path


def tensors_of(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The lines of `metrics.csv` without the seconds, which no two runs share."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def independent_scores(model: DeepLabV3, data: Path) -> tuple[float, float]:
    """mIoU and pixel accuracy on the validation split by torch's own interpolation and plain counting."""
    dataset = open_dataset(data, "val")
    masks, labels = [], []
    for sample in dataset.samples:
        frame, label = sample.read()
        batch, _ = preprocess(frame, small_spec().input)
        with torch.inference_mode():
            logits = nn.functional.interpolate(model(torch.from_numpy(batch)), label.shape, mode="bilinear")
        masks.append(logits.argmax(1)[0].numpy())
        labels.append(label)
    mask, label = np.stack(masks), np.stack(labels)
    counted = label != dataset.classes.ignore_index
    ious = []
    for c in range(len(dataset.classes)):
        together = int(((mask == c) & (label == c) & counted).sum())
        either = int((((mask == c) | (label == c)) & counted).sum())
        if either:
            ious.append(together / either)
    return float(np.mean(ious)), float((mask == label)[counted].mean())
