"""TrainingPlan: every choice of a training run, in one place."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture, InputSpec, check_size
from dlv3deploy.train.atrous import check_output_stride
from dlv3deploy.train.deeplabv3 import BACKBONES

Optimiser = Literal["adamw", "sgd"]

# Learning rates for a batch of 16; SGD's is the paper's (section 4.1), AdamW's suits short fine-tuning.
BASE_RATES: dict[Optimiser, float] = {"adamw": 1e-3, "sgd": 7e-3}
BASE_BATCH = 16
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
LARGEST_SCALE = 16.0  # an image grows by its square


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
        self._check_network()
        self._check_data()
        self._check_steps()

    def _check_network(self) -> None:
        network = self.architecture
        if network.backbone not in BACKBONES:
            raise UserError(f"backbone {network.backbone!r}", "is unknown", f"use one of {', '.join(BACKBONES)}")
        check_output_stride(network.output_stride)
        if not network.aspp_rates or min(network.aspp_rates) < 1:
            raise UserError(f"ASPP rates {network.aspp_rates}", "are whole numbers of 1 or more", "the paper's are 6,12,18")
        if network.aspp_channels < 1:
            raise UserError(f"{network.aspp_channels} ASPP channels", "are too few", "the paper has 256")
        for size in (self.crop, (self.input.height, self.input.width)):
            check_size(*size, network.output_stride)

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

    def _check_steps(self) -> None:
        if self.batch_size < 2:
            raise UserError(f"batch size {self.batch_size}", "batch norm needs at least 2 images", "use --batch-size 2 or more")
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
        for name in ("weight_decay", "poly_power", "auxiliary_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(
                    f"{name.replace('_', ' ')} {getattr(self, name)}", "is 0 or more", "leave it out for the default"
                )
        if not 0 <= self.seed < 1 << 63:
            raise UserError(f"seed {self.seed}", "is 0 or more and below 2⁶³", "use --seed 0")

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
        """What must be the same for a run to be resumed, by the option's name.

        Free to change are the place of the data, the number of workers, the precision, how often validation runs, and the
        backbone's weights, which the saved state replaces.
        """
        settings = asdict(self) | asdict(self.architecture) | asdict(self.input)
        settings |= {"size": (self.input.height, self.input.width), "learning_rate": self.initial_rate}
        settings |= {"classes": ", ".join(self.classes.names), "ignore_index": self.classes.ignore_index}
        free = ("data", "workers", "precision", "validate_every", "backbone_weights")
        for name in (*free, "architecture", "input", "height", "width"):
            del settings[name]
        return {name.replace("_", "-"): str(value) for name, value in settings.items()}
