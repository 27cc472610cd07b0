"""Settings: what a training run is told whatever its data; without torch, so that what cannot be is refused at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from dlv3deploy.core.datasets import Split
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.loss_choice import LossChoice
from dlv3deploy.train.network.choices import DROPOUT, check_architecture

Optimiser = Literal["adamw", "sgd"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]

# Learning rates for a batch of 16; SGD's is the paper's (section 4.1), AdamW's suits short fine-tuning.
BASE_RATES: dict[Optimiser, float] = {"adamw": 1e-3, "sgd": 7e-3}
BASE_BATCH = 16
LARGEST_SCALE = 16.0  # an image grows by its square
MOST_REPEATS = 100


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The network, the schedule, augmentation, loss, batch norm, and how it is computed. Raises UserError.

    `scale` is the augmentation's range; `learning_rate` decays by the poly rule to zero over `steps`; validation runs every
    `validate_every` steps and at the end. A batch of `batch_size` is spread over all processes and, on each, over `accumulate`
    passes; `one_device` leaves further devices alone. `split` is what is trained on, of data sets that have more than `train`.
    `ema_decay` keeps an exponential moving average of the weights, which is what is then validated and saved.
    """

    architecture: Architecture
    steps: int
    batch_size: int = 8
    accumulate: int = 1
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    split: Split = "train"
    repeats: int = 2
    loss: LossChoice = field(default_factory=LossChoice)
    optimiser: Optimiser = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    poly_power: float = 0.9
    dropout: float = DROPOUT
    frozen_batch_norm: bool = False
    sync_batch_norm: bool = False
    batch_norm_momentum: float | None = None
    ema_decay: float | None = None
    validate_every: int = 500
    seed: int = 0
    workers: int = 1
    precision: Precision = "auto"
    compiled: bool = False
    one_device: bool = False

    def __post_init__(self) -> None:
        check_architecture(self.architecture)
        self._check_images()
        self._check_steps()
        self._check_shares()

    def _check_images(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= LARGEST_SCALE:
            raise UserError(
                f"scale {self.scale[0]} to {self.scale[1]}",
                f"is no range above 0 and up to {LARGEST_SCALE:g}",
                "the paper's is 0.5,2.0",
            )
        if self.workers < 0:
            raise UserError(f"{self.workers} workers", "is below 0", "use --workers 0 to read images in the main process")
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise UserError(f"{self.repeats} repeats", f"are 1 to {MOST_REPEATS}", "the usual is 2")

    def _check_steps(self) -> None:
        if self.accumulate < 1:
            raise UserError(f"accumulation over {self.accumulate} passes", "is over 1 or more", "use --accumulate 1")
        fewest = self.images_for_batch_norm * self.accumulate
        if self.batch_size < fewest:
            reason = "batch norm needs at least 2 images in each pass" if not self.frozen_batch_norm else "each pass needs one"
            raise UserError(f"batch size {self.batch_size}", reason, f"use --batch-size {fewest} or more")
        if self.steps < 1 or self.validate_every < 1:
            raise UserError(
                f"{self.steps} steps, validation every {self.validate_every}", "both are 1 or more", "use --steps 1000"
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning rate {self.learning_rate}", "is above 0", "leave it out for the default")
        if not 0 <= self.seed < 1 << 63:
            raise UserError(f"seed {self.seed}", "is 0 or more and below 2⁶³", "use --seed 0")

    def _check_shares(self) -> None:
        for name in ("weight_decay", "poly_power"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(
                    f"{name.replace('_', ' ')} {getattr(self, name)}", "is 0 or more", "leave it out for the default"
                )
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout {self.dropout}", "is 0 or more and below 1", f"torchvision's is {DROPOUT}")
        if self.batch_norm_momentum is not None and not 0 < self.batch_norm_momentum <= 1:
            raise UserError(f"batch-norm momentum {self.batch_norm_momentum}", "is above 0 and at most 1", "torch's is 0.1")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError(f"EMA decay {self.ema_decay}", "is above 0 and below 1", "0.999 suits a few thousand steps")
        if self.frozen_batch_norm and self.sync_batch_norm:
            raise UserError("frozen and synchronised batch norm", "exclude each other", "give one of them")

    @property
    def images_for_batch_norm(self) -> int:
        """How many images a pass takes at least: the statistics of one would be its own."""
        return 1 if self.frozen_batch_norm else 2

    @property
    def initial_rate(self) -> float:
        """The learning rate of step 0: as given, or the optimiser's base rate scaled with the batch's square root or size."""
        if self.learning_rate is not None:
            return self.learning_rate
        ratio = self.batch_size / BASE_BATCH
        return BASE_RATES[self.optimiser] * (ratio if self.optimiser == "sgd" else math.sqrt(ratio))

    def rate_at(self, step: int) -> float:
        """The poly rule (paper, section 4.1): initial · (1 − step/steps)^power."""
        return self.initial_rate * float((1 - step / self.steps) ** self.poly_power)
