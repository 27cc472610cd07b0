"""TrainingPlan: every choice of a training run, in one place; without torch, as `settings.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Coordinates, InputSpec, check_size
from dlv3deploy.train.settings import Settings

# Settings whose option has another name, and those that are no option: where they differ, a program's version does.
OPTION_NAMES = {
    "ema-decay": "ema",
    "frozen-batch-norm": "freeze-batch-norm",
    "hard-below": "ohem",
    "dice-weight": "dice",
}
NO_OPTIONS = frozenset({"auxiliary-weight", "early-padding", "dynamic-size", "dynamic-batch", "colour-order"})


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Settings):
    """A run is decided by this and the data: the same plan and seed give the same weights on a CPU.

    `crop` is the augmentation's. Images that hold one of `repeat_classes` count `repeats` times (the paper's hard images,
    section 4.3). The weights begin with those of `backbone_weights` or `start_from`, or at random.
    """

    data: Path
    classes: Classes
    input: InputSpec
    crop: tuple[int, int]
    repeat_classes: tuple[str, ...] = ()
    backbone_weights: Path | None = None
    start_from: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in (self.crop, (self.input.height, self.input.width)):
            check_size(*size, self.architecture.output_stride)
        if not (all(map(math.isfinite, self.input.mean)) and all(0 < s < math.inf for s in self.input.std)):
            raise UserError(
                f"mean {self.input.mean}, std {self.input.std}",
                "a mean is finite, a std above 0",
                "leave them out for ImageNet's",
            )
        if strange := [name for name in self.repeat_classes if name not in self.classes.names]:
            known = ", ".join(self.classes.names)
            raise UserError(f"class {strange[0]!r} to repeat", f"is none of {known}", "use names of the data set's classes")
        if self.backbone_weights and self.start_from:
            raise UserError("--backbone-weights and --from", "both say where the weights begin", "give one of them")

    @property
    def coordinates(self) -> Coordinates:
        """How scores are brought to the input's size: aligned corners where every side is k · stride + 1, as in the paper.

        Then cells are read where they stand, and the weights serve at other output strides as they are.
        """
        sides = (*self.crop, self.input.height, self.input.width)
        aligned = all(side % self.architecture.output_stride == 1 for side in sides)
        return "align-corners" if aligned else "half-pixel"

    def lines(self, begins_with: str) -> tuple[str, str]:
        """The plan for people: what is trained from which weights, and how."""
        height, width = self.crop
        return (
            f"training {self.architecture}, from {begins_with}",
            f"input {self.input.height}×{self.input.width} ({self.input.resize}), crop {height}×{width}, "
            f"interpolation {self.coordinates}, batch {self.batch_size}, {self.steps} steps",
        )

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
