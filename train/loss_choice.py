"""What may be chosen of the loss; without torch, so that a bad choice is refused at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dlv3deploy.core.errors import UserError


@dataclass(frozen=True)
class LossChoice:
    """`hard_below` keeps pixels whose own class has a probability below it (online hard example mining, OHEM).

    `dice_weight` adds that much of the soft Dice loss; `class_weights` weighs classes by median frequency.
    """

    label_smoothing: float = 0.0
    hard_below: float | None = None
    dice_weight: float = 0.0
    class_weights: bool = False
    auxiliary_weight: float = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label smoothing {self.label_smoothing}", "is 0 or more and below 1", "0.1 is usual")
        if self.hard_below is not None and not 0 < self.hard_below <= 1:
            raise UserError(f"OHEM threshold {self.hard_below}", "is a probability above 0", "0.7 is usual")
        for name, weight in (("Dice weight", self.dice_weight), ("auxiliary weight", self.auxiliary_weight)):
            if not 0 <= weight < math.inf:
                raise UserError(f"{name} {weight}", "is 0 or more", "leave it out for the default")
