"""TrainingPlan: every choice of a training run, in one place."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture, InputSpec, check_size

Optimiser = Literal["adamw", "sgd"]

# Learning rates for a batch of 16; SGD's is the paper's (section 4.1), AdamW's suits short fine-tuning.
BASE_RATES: dict[Optimiser, float] = {"adamw": 1e-3, "sgd": 7e-3}
BASE_BATCH = 16


@dataclass(frozen=True)
class TrainingPlan:
    """A run is decided by this and the data: the same plan and seed give the same weights on a CPU.

    `crop` and `scale` are the augmentation's; `learning_rate` decays by the poly rule to zero over `steps`; validation runs
    every `validate_every` steps and at the end.
    """

    data: Path
    classes: Classes
    architecture: Architecture
    input: InputSpec
    crop: tuple[int, int]
    steps: int
    batch_size: int = 8
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    optimiser: Optimiser = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    poly_power: float = 0.9
    auxiliary_weight: float = 0.4
    validate_every: int = 500
    seed: int = 0
    workers: int = 1
    precision: str = "auto"
    backbone_weights: Path | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise UserError(f"batch size {self.batch_size}", "batch norm needs at least 2 images", "use --batch-size 2 or more")
        if self.steps < 1 or self.validate_every < 1:
            raise UserError(
                f"{self.steps} steps, validation every {self.validate_every}", "both are 1 or more", "use --steps 1000"
            )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise UserError(f"scale {self.scale[0]} to {self.scale[1]}", "is no range above 0", "the paper's is 0.5,2.0")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning rate {self.learning_rate}", "is above 0", "leave it out for the default")
        for size in (self.crop, (self.input.height, self.input.width)):
            check_size(*size, self.architecture.output_stride)

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

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed; the number of workers and the place of the data may change."""
        fields = asdict(self)
        for name in ("data", "workers", "backbone_weights", "classes", "validate_every", "precision"):
            del fields[name]
        return {name: repr(value) for name, value in fields.items()} | {"classes": repr(self.classes)}
