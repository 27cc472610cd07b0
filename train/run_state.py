"""What a run leaves behind: the state to resume from, the metrics table, the best and the last checkpoint."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing, write_text
from dlv3deploy.train.plan import TrainingPlan


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
    """How far a run has come; `best_miou` is −1 before the first validation."""

    step: int = 0
    seconds: float = 0.0
    best_miou: float = -1.0
    best_pixel_accuracy: float = 0.0


class RunFolder:
    """The files below `artifacts/train/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state, self.metrics, self.curve = root / "state.pt", root / "metrics.csv", root / "curve.png"
        self.best, self.last = root / "best.safetensors", root / "last.safetensors"

    def save_state(self, plan: TrainingPlan, progress: Progress, model: dict[str, Any], optimiser: dict[str, Any]) -> None:
        state = {"plan": plan.fingerprint(), "steps": plan.steps, "progress": asdict(progress), "model": model}
        with replacing(self.state) as partial:
            torch.save(state | {"optimiser": optimiser}, partial)

    def load_state(self, plan: TrainingPlan) -> dict[str, Any]:
        """The saved state, checked to be of the same plan. Raises UserError naming the first setting that differs."""
        state = self._read_state()
        for name, value in plan.fingerprint().items():
            if state["plan"].get(name) != value:
                raise UserError(
                    f"--resume with {name} {value}",
                    f"the saved run has {name} {state['plan'].get(name)}",
                    "give the same options as before, or start anew with --restart",
                )
        return state

    def require_free(self) -> None:
        """Raise UserError when an unfinished run lies here, which a new one would overwrite."""
        if not self.state.exists():
            return
        state = self._read_state()
        done, total = state["progress"]["step"], state["steps"]
        if done < total:
            raise UserError(
                str(self.root),
                f"holds a run that stopped at step {done} of {total}",
                "use --resume to go on, --restart to begin again",
            )

    def _read_state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(self.state, map_location="cpu", weights_only=True)
            _ = state["plan"], state["steps"], state["progress"]["step"], state["model"], state["optimiser"]
            return state
        except FileNotFoundError as error:
            raise UserError(str(self.root), "holds no run to resume", "leave --resume out to start one") from error
        except Exception as error:  # torch raises whatever the pickle machinery meets
            raise UserError(str(self.state), "is damaged", "start anew with --restart") from error

    def read_rows(self, up_to_step: int) -> list[Row]:
        """The rows of an earlier part of the run; a killed run may have left later ones, which are dropped."""
        if not self.metrics.exists():
            return []
        with self.metrics.open(newline="", encoding="utf-8") as file:
            return [row for row in map(_row, csv.DictReader(file)) if row.step <= up_to_step]

    def write_rows(self, rows: list[Row]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in asdict(row).items()} for row in rows)
        write_text(self.metrics, text.getvalue())


def _row(record: dict[str, str]) -> Row:
    values = {name: float(text) if text else None for name, text in record.items()}
    return Row(**{**values, "step": int(record["step"])})  # type: ignore[arg-type]  # the table's own header
