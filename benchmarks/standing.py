"""How far a training in a workspace has come, and whether it is the one that is meant."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from recipes import Command

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.workspace import Workspace

Standing = Literal["finished", "stopped", "absent"]

FREE = ("classes", "backbone-weights", "from", "validate-every", "compile", "workers")  # a run's state does not compare them
HELP = "give another --workspace"


def standing(workspace: Path, options: Command) -> Standing:
    """Of the training in `workspace` that `options` describe. Raises UserError when what lies there is another one."""
    from dlv3deploy.train.run_state import RunFolder

    place = Workspace(workspace)
    folder = RunFolder(place.training)
    if not folder.state.is_file():
        if place.checkpoint.exists():
            raise UserError("the workspace", "holds a checkpoint and no state of the training that made it", HELP)
        return "absent"
    try:
        state = folder.read_state()
    except UserError as error:  # which names the file, and no path may get into the table
        raise UserError("the training's state", error.rule, HELP) from error
    require_same(options, state.plan)
    return "finished" if state.is_finished and place.checkpoint.is_file() else "stopped"


def require_same(options: Command, plan: Mapping[str, str]) -> None:
    """Raise UserError naming the first of `options` that a run's recorded plan has otherwise."""
    for name, value in _settings(options).items():
        if name not in plan or _value(plan[name]) != value:
            raise UserError("the workspace", f"holds a training with {name} {plan.get(name)}, not {value}", HELP)


def training_minutes(workspace: Path) -> float:
    """What the last row of metrics.csv says, validations included. Raises UserError when there is none."""
    path = Workspace(workspace).training / "metrics.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return float(list(csv.DictReader(file))[-1]["seconds"]) / 60
    except (OSError, IndexError, KeyError, ValueError) as error:
        raise UserError("train/metrics.csv", "has no row with seconds", HELP) from error


def _settings(options: Command) -> dict[str, Any]:
    """The options as a run's state names them, with their values."""
    found: dict[str, Any] = {}
    for index, option in enumerate(options):
        if not option.startswith("--"):
            continue
        after = options[index + 1] if index + 1 < len(options) else "--"
        name = option.removeprefix("--")
        if after.startswith("--"):
            found[name.removeprefix("no-")] = not name.startswith("no-")
        else:
            found[name] = _value(after)
    return {name: value for name, value in found.items() if name not in FREE}


def _value(text: str) -> Any:
    """`352x480` and `(352, 480)` are one pair, `0.99` is a number, and what is neither stays a text."""
    try:
        return ast.literal_eval(re.sub(r"^(\d+)x(\d+)$", r"\1,\2", text))
    except (ValueError, SyntaxError):
        return text
