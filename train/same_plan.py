"""Whether a run is gone on with by the plan that began it, and how to say that it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlv3deploy.core.errors import UserError
from dlv3deploy.train.plan import NO_OPTIONS, TrainingPlan

MOST_NAMED = 4  # options in one message
MOST_CLASSES = 3


def require_same(plan: TrainingPlan, saved: Mapping[str, str]) -> None:
    """Raise UserError naming the settings of `plan` that are others in the `saved` run, with both values.

    What an earlier version did not record is not compared.
    """
    now = plan.fingerprint()
    differing = [name for name, value in now.items() if saved.get(name, value) != value]
    if plan.learning_rate is None and {"batch-size", "optimiser"} & set(differing):
        differing = [name for name in differing if name != "learning-rate"]  # which follows those
    if not differing:
        return
    remedy = "give the same options as before, or start anew with --restart"
    if set(differing) <= NO_OPTIONS:
        remedy = "go on with the version that began it, or start anew with --restart"
    raise UserError(f"--resume with {_listed(differing, now)}", f"the saved run has {_listed(differing, saved)}", remedy)


def _listed(names: Sequence[str], values: Mapping[str, str]) -> str:
    shown = [_as_typed(name, values[name]) for name in names[:MOST_NAMED]]
    return ", ".join(shown) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def _as_typed(name: str, value: str) -> str:
    """A setting as the command line has it, or in words where it is no option: `--crop 48x64`, `no --flip`."""
    if name in NO_OPTIONS:
        return f"{name.replace('-', ' ')} {value}"
    if name == "classes":
        names = value.split(", ")
        return f"classes {', '.join(names[:MOST_CLASSES])}{', …' * (len(names) > MOST_CLASSES)}"
    if value in ("True", "False", "None"):
        return f"--{name}" if value == "True" else f"no --{name}"
    joint = "x" if name in ("size", "crop") else ","
    return f"--{name} {joint.join(part for part in value.strip('()').split(', ') if part).rstrip(',') or 'none'}"
