"""What a run leaves behind: the state to resume from, the metrics table, the best and the last checkpoint.

torch is imported by what reads or writes the state alone: that there is none to resume is said at once.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing, write_text
from dlv3deploy.train.plan import TrainingPlan, by_option
from dlv3deploy.train.same_plan import require_same


@dataclass(frozen=True)
class Row:
    """One line of `metrics.csv`; the validation's figures are empty where none ran. `loss` is the mean since the last row."""

    step: int
    epoch: float
    learning_rate: float
    loss: float
    miou: float | None
    pixel_accuracy: float | None
    seconds: float


@dataclass
class Progress:
    """How far a run has come; `best_miou` is −1 before the first validation.

    `settled` is the last step whose validation and row, where due, are done: Ctrl-C may fall between the two. The losses since
    the last row are summed in `loss_sum`.
    """

    step: int = 0
    settled: int = 0
    seconds: float = 0.0
    best_miou: float = -1.0
    best_pixel_accuracy: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0

    def count(self, loss: float, seconds: float) -> None:
        """One more step done, `seconds` after the run's start."""
        self.step, self.seconds = self.step + 1, seconds
        self.loss_sum, self.loss_steps = self.loss_sum + loss, self.loss_steps + 1


@dataclass(frozen=True)
class SavedState:
    """What `state.pt` holds: the plan's fingerprint, where the run stands, and what its model and optimiser had learnt.

    `scaler` is float16's loss scale, empty in other precisions.
    """

    plan: dict[str, str]
    steps: int
    progress: Progress
    rows: list[Row]
    model: dict[str, Any]
    optimiser: dict[str, Any]
    average: dict[str, Any] | None
    scaler: dict[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether all steps were taken, and what was due after them is done."""
        return self.progress.settled >= self.steps


class RunFolder:
    """The files below `artifacts/train/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state, self.metrics, self.curve = root / "state.pt", root / "metrics.csv", root / "curve.png"
        self.best, self.last = root / "best.safetensors", root / "last.safetensors"

    def save_state(
        self,
        plan: TrainingPlan,
        progress: Progress,
        rows: list[Row],
        model: dict[str, Any],
        optimiser: dict[str, Any],
        average: dict[str, Any] | None,
        scaler: dict[str, Any],
    ) -> None:
        state = {
            "plan": plan.fingerprint(),
            "steps": plan.steps,
            "progress": asdict(progress),
            "rows": [asdict(row) for row in rows],
            "model": model,
            "optimiser": optimiser,
            "average": average,
            "scaler": scaler,
        }
        import torch

        with replacing(self.state) as partial:
            torch.save(state, partial)

    def load_state(self, plan: TrainingPlan) -> SavedState:
        """The saved state, checked to be of the same plan. Raises UserError naming the options that differ."""
        state = self.read_state()
        require_same(plan, state.plan)
        if state.progress.best_miou >= 0 and not self.best.is_file():
            raise UserError(str(self.best), "is missing, and the saved run counts on it", "start anew with --restart")
        return state

    def read_losses(self) -> list[float]:
        """The training loss of every row, in order."""
        return [row.loss for row in self.read_state().rows]

    def require_run(self) -> None:
        """Raise UserError when no run lies here that could be resumed."""
        if not self.state.exists():
            raise UserError(str(self.root), "holds no run to resume", "leave --resume out to start one")

    def require_free(self) -> None:
        """Raise UserError when an unfinished run lies here, which a new one would overwrite."""
        if not self.state.exists():
            return
        state = self.read_state()
        if not state.is_finished:
            raise UserError(
                str(self.root),
                f"holds a run that stopped at step {state.progress.step} of {state.steps}",
                "use --resume to go on, --restart to begin again",
            )

    def forget(self) -> None:
        """Remove the state of an earlier run, so that a new one that dies early is not resumed as that one."""
        self.state.unlink(missing_ok=True)

    def read_state(self) -> SavedState:
        """What the last run left, be it of this plan or not. Raises UserError when it is missing or damaged."""
        self.require_run()
        import torch

        try:
            state: dict[str, Any] = torch.load(self.state, map_location="cpu", weights_only=True)
            progress, rows = Progress(**state["progress"]), [Row(**row) for row in state["rows"]]
            learnt = state["model"], state["optimiser"], state.get("average"), state.get("scaler", {})
            return SavedState(by_option(state["plan"]), int(state["steps"]), progress, rows, *learnt)
        except Exception as error:  # torch raises whatever the pickle machinery meets
            raise UserError(str(self.state), "is damaged", "start anew with --restart") from error

    def write_rows(self, rows: list[Row]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in asdict(row).items()} for row in rows)
        write_text(self.metrics, text.getvalue())
