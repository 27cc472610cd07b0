"""Run: what the steps of one training run share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from lightning_fabric import Fabric
from torch.optim.swa_utils import AveragedModel

from dlv3deploy.core.datasets import Dataset
from dlv3deploy.core.metrics import SegmentationScores
from dlv3deploy.core.spec import ModelSpec, OutputSpec, TrainingFacts
from dlv3deploy.train.batch_norm import RunningStatistics
from dlv3deploy.train.loss import SegmentationLoss
from dlv3deploy.train.network.deeplabv3 import DeepLabV3
from dlv3deploy.train.plan import TrainingPlan
from dlv3deploy.train.run_state import Progress, Row, RunFolder


@dataclass
class Run:
    """`trained` is `model` as Fabric wrapped it; `average` holds the moving average of its weights, where one is kept."""

    plan: TrainingPlan
    folder: RunFolder
    fabric: Fabric
    model: DeepLabV3
    trained: torch.nn.Module
    average: AveragedModel | None
    statistics: RunningStatistics
    loss: SegmentationLoss
    optimiser: torch.optim.Optimizer
    train_set: Dataset
    val_set: Dataset
    progress: Progress
    rows: list[Row]

    @property
    def judged(self) -> DeepLabV3:
        """The weights that are validated and saved: the average, where one is kept."""
        return self.model if self.average is None else cast("DeepLabV3", self.average.module)

    @property
    def is_saved(self) -> bool:
        """Whether this very step has been validated, and saved with its figures."""
        return bool(self.rows) and self.rows[-1].step == self.progress.step and self.rows[-1].miou is not None

    def spec(self, scores: SegmentationScores | None = None) -> ModelSpec:
        """The model's description; `scores` are the validation's of these very weights, when there was one."""
        figures = (scores.miou, scores.pixel_accuracy) if scores else (None, None)
        facts = TrainingFacts(str(self.plan.data.resolve()), self.progress.step, *figures)
        return ModelSpec(
            self.plan.classes, self.plan.input, OutputSpec("scores", self.plan.coordinates), self.plan.architecture, facts
        )
