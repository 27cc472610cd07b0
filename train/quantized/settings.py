"""What a fine-tuning run is told; without torch, so that what cannot be is refused at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dlv3deploy.core.datasets import Split
from dlv3deploy.core.errors import UserError

LEARNING_RATE = 0.02  # of weights, in steps of their grids
SCALES = (0.75, 1.25)  # of the augmentation, around the size at which the model sees pictures


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """`learning_rate` is about how far one update moves a weight, in steps of its grid; it decays by the poly rule.

    `scale` is the augmentation's range, by default around the size at which the model sees pictures. Raises UserError.
    """

    steps: int = 200
    batch_size: int = 4
    learning_rate: float = LEARNING_RATE
    poly_power: float = 0.9
    validate_every: int = 50
    scale: tuple[float, float] | None = None
    flip: bool = True
    split: Split = "train"
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.validate_every, self.batch_size) < 1:
            given = f"{self.steps} steps of {self.batch_size} images, validation every {self.validate_every}"
            raise UserError(given, "all are 1 or more", "leave them out for the defaults")
        if not 0 < self.learning_rate <= 1:
            raise UserError(
                f"learning rate {self.learning_rate}",
                "is in steps of the weights' grids here, above 0 and up to 1",
                f"leave it out for {LEARNING_RATE}",
            )
        if not 0 <= self.poly_power < math.inf:
            raise UserError(f"poly power {self.poly_power}", "is 0 or more", "leave it out for the default")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise UserError(f"scale {self.scale[0]} to {self.scale[1]}", "is no range above 0", "leave it out for the default")
        if self.workers < 0 or self.seed < 0:
            raise UserError(f"{self.workers} workers, seed {self.seed}", "are 0 or more", "leave them out for the defaults")

    def rate_at(self, step: int) -> float:
        """The poly rule (paper, section 4.1): initial · (1 − step/steps)^power."""
        return self.learning_rate * float((1 - step / self.steps) ** self.poly_power)

    def __str__(self) -> str:
        return f"{self.steps} steps of {self.batch_size} images, rate {self.learning_rate:g}, seed {self.seed}"
