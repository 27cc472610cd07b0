"""Method: which observer and which steps make an INT8 model, and how a command line names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dlv3deploy.calibration.thresholds import THRESHOLDS
from dlv3deploy.calibration.weights import PER_CHANNEL, WeightGrid
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.similar import did_you_mean

AUTO = "auto"
STEPS = {
    "valid-taps": "statistics count a position as often as atrous convolutions read it",
    "equalise": "factors per channel that make channels alike, the function unchanged",
    "clips": "equalisation passes ReLU6, whose bound becomes one per channel",
    "bias": "biases make good for the mean error, padding counted",
    "rounding": "weights are rounded so that outputs stay, not weights; with bias",
    "sequential": "layers one after another, for what the INT8 network before each passes on",
}


@dataclass(frozen=True)
class Method:
    """`observer` is a key of THRESHOLDS; the other fields are the steps above."""

    observer: str = "min-max"
    valid_taps: bool = False
    equalise: bool = False
    clips: bool = False
    bias: bool = False
    rounding: bool = False
    sequential: bool = False
    grid: WeightGrid = PER_CHANNEL

    def __str__(self) -> str:
        steps = [name for name in STEPS if getattr(self, name.replace("-", "_"))]
        weights = [f"{self.grid.bits}-bit weights"] if self.grid.bits != 8 else []
        weights += ["one step per weight tensor"] if self.grid.per_tensor else []
        return ", ".join(["+".join([self.observer, *steps]), *weights])


def parse_method(text: str, grid: WeightGrid) -> Method:
    """From `observer+step+step`. Raises UserError that names what exists."""
    observer, *steps = (part.strip() for part in text.split("+"))
    choices = f"an observer ({', '.join(THRESHOLDS)}) and steps joined by + ({', '.join(STEPS)}), or {AUTO}"
    if observer in STEPS or (observer in THRESHOLDS and any(step in THRESHOLDS for step in steps)):
        raise UserError(f"--method {text}", "a method is one observer and then steps", f"give {choices}")
    unknown = [name for name in (observer,) if name not in THRESHOLDS] + [name for name in steps if name not in STEPS]
    if unknown:
        meant = did_you_mean(unknown[0], [AUTO, *THRESHOLDS, *STEPS])
        raise UserError(f"--method {text!r}: {unknown[0] or 'nothing'}", "is unknown", f"{meant} give {choices}".lstrip())
    if repeated := next((step for step in steps if steps.count(step) > 1), None):
        raise UserError(f"--method {text}", f"{repeated} is there twice", "write every step once")
    chosen: dict[str, Any] = {step.replace("-", "_"): True for step in steps}
    method = Method(observer, grid=grid, **chosen)
    if method.sequential and not (method.bias and method.rounding):
        raise UserError(f"--method {text}", "sequential finds weights and biases together", "write bias+rounding+sequential")
    if method.rounding and not method.bias:
        rule = "rounding leaves the mean of what it changes to the biases"
        raise UserError(f"--method {text}", rule, "write bias+rounding")
    if method.valid_taps and method.observer == "min-max":
        rule = "valid-taps weights how often values occur, and min-max takes the largest, however rare"
        others = ", ".join(name for name in THRESHOLDS if name != "min-max")
        raise UserError(f"--method {text}", rule, f"leave it out, or take one of {others}")
    if method.clips and not method.equalise:
        raise UserError(f"--method {text}", "clips is a way to equalise", "write equalise+clips")
    return method
