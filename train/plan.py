"""TrainingPlan: every choice of a training run, in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.datasets import Split
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture, Coordinates, InputSpec, check_size
from dlv3deploy.train.loss import LossChoice
from dlv3deploy.train.network.aspp import DROPOUT
from dlv3deploy.train.network.choices import check_architecture

Optimiser = Literal["adamw", "sgd"]

# Learning rates for a batch of 16; SGD's is the paper's (section 4.1), AdamW's suits short fine-tuning.
BASE_RATES: dict[Optimiser, float] = {"adamw": 1e-3, "sgd": 7e-3}
BASE_BATCH = 16
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
LARGEST_SCALE = 16.0  # an image grows by its square
MOST_REPEATS = 100

# Settings whose option has another name, and those that are no option: where they differ, a program's version does.
OPTION_NAMES = {
    "ema-decay": "ema",
    "frozen-batch-norm": "freeze-batch-norm",
    "hard-below": "ohem",
    "dice-weight": "dice",
}
NO_OPTIONS = frozenset({"auxiliary-weight", "early-padding", "dynamic-size", "dynamic-batch", "colour-order"})


@dataclass(frozen=True)
class TrainingPlan:
    """A run is decided by this and the data: the same plan and seed give the same weights on a CPU.

    `crop` and `scale` are the augmentation's; `learning_rate` decays by the poly rule to zero over `steps`; validation runs
    every `validate_every` steps and at the end. A batch of `batch_size` is spread over all processes and, on each, over
    `accumulate` passes; `one_device` leaves further devices alone. Images that hold one of `repeat_classes` count `repeats`
    times (the paper's hard images, section 4.3). `split` is what is trained on, of data sets that have more than `train`.
    `ema_decay` keeps an exponential moving average of the weights, which is what is then validated and saved.
    """

    data: Path
    classes: Classes
    architecture: Architecture
    input: InputSpec
    crop: tuple[int, int]
    steps: int
    batch_size: int = 8
    accumulate: int = 1
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    split: Split = "train"
    repeat_classes: tuple[str, ...] = ()
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
    precision: str = "auto"
    compiled: bool = False
    one_device: bool = False
    backbone_weights: Path | None = None
    start_from: Path | None = None

    def __post_init__(self) -> None:
        check_architecture(self.architecture)
        for size in (self.crop, (self.input.height, self.input.width)):
            check_size(*size, self.architecture.output_stride)
        self._check_data()
        self._check_steps()
        self._check_shares()

    def _check_data(self) -> None:
        if not (all(map(math.isfinite, self.input.mean)) and all(0 < s < math.inf for s in self.input.std)):
            raise UserError(
                f"mean {self.input.mean}, std {self.input.std}",
                "a mean is finite, a std above 0",
                "leave them out for ImageNet's",
            )
        if not 0 < self.scale[0] <= self.scale[1] <= LARGEST_SCALE:
            raise UserError(
                f"scale {self.scale[0]} to {self.scale[1]}",
                f"is no range above 0 and up to {LARGEST_SCALE:g}",
                "the paper's is 0.5,2.0",
            )
        if self.workers < 0:
            raise UserError(f"{self.workers} workers", "is below 0", "use --workers 0 to read images in the main process")
        if strange := [name for name in self.repeat_classes if name not in self.classes.names]:
            known = ", ".join(self.classes.names)
            raise UserError(f"class {strange[0]!r} to repeat", f"is none of {known}", "use names of the data set's classes")
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
        if self.optimiser not in BASE_RATES:
            raise UserError(f"optimiser {self.optimiser!r}", "is unknown", f"use {' or '.join(BASE_RATES)}")
        if self.precision not in PRECISIONS:
            raise UserError(f"precision {self.precision!r}", "is unknown", f"use one of {', '.join(PRECISIONS)}")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning rate {self.learning_rate}", "is above 0", "leave it out for the default")
        if not 0 <= self.seed < 1 << 63:
            raise UserError(f"seed {self.seed}", "is 0 or more and below 2⁶³", "use --seed 0")
        if self.backbone_weights and self.start_from:
            raise UserError("--backbone-weights and --from", "both say where the weights begin", "give one of them")

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
    def coordinates(self) -> Coordinates:
        """How scores are brought to the input's size: aligned corners where every side is k · stride + 1, as in the paper.

        Then cells are read where they stand, and the weights serve at other output strides as they are.
        """
        sides = (*self.crop, self.input.height, self.input.width)
        aligned = all(side % self.architecture.output_stride == 1 for side in sides)
        return "align-corners" if aligned else "half-pixel"

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

    def fingerprint(self) -> dict[str, str]:
        """What must be the same for a run to be resumed, by the option's name where there is one.

        Free to change are the place of the data, the number of workers, the precision, whether the network is compiled, how
        often validation runs, and the weights to begin with, which the saved state replaces.
        """
        frame = asdict(self.input)
        settings = asdict(self) | asdict(self.architecture) | asdict(self.loss)
        settings |= {"size": (frame.pop("height"), frame.pop("width")), "learning_rate": self.initial_rate} | frame
        settings |= {"classes": ", ".join(self.classes.names), "ignore_index": self.classes.ignore_index}
        free = ("data", "workers", "precision", "compiled", "one_device", "validate_every", "backbone_weights", "start_from")
        for name in (*free, "architecture", "input", "loss"):
            del settings[name]
        return by_option({name.replace("_", "-"): str(value) for name, value in settings.items()})


def by_option(settings: Mapping[str, str]) -> dict[str, str]:
    """`settings` under the names of the command line."""
    return {OPTION_NAMES.get(name, name): value for name, value in settings.items()}
