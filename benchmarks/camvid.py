"""What DeepLabv3 scores on CamVid, trained and judged through the command line, as a table like the paper's Table 6.

    python benchmarks/camvid.py --data CAMVID --backbone-weights FILE --workspace DIR
    python benchmarks/camvid.py … --backbones mobilenet_v2,resnet50,resnet101               # with a GPU

A training that DIR holds already is not repeated, one that stopped goes on. The table goes to benchmarks/results/camvid.md.
Exit codes: 0 all that this machine can run was measured, 1 some of it failed (the table says what), 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from machine import Machine, this_machine
from markdown import markdown_table
from recipes import INFERENCES, RECIPES, Command, Inference, Places, Recipe, Stage
from standing import standing, training_minutes

from dlv3deploy.core.errors import Dlv3Error, UserError
from dlv3deploy.core.files import write_text
from dlv3deploy.core.progress import say

TABLE = Path(__file__).parent / "results" / "camvid.md"
PROGRAM = (sys.executable, "-m", "dlv3deploy")
INTERRUPTED = 130
NONE = "–"


@dataclass(frozen=True)
class Row:
    """`scores` are what `evaluate --json` printed; without them `reason` says why. `seconds` are the whole command's."""

    network: str
    inference: str
    command: Command
    scores: dict[str, Any] | None = None
    training_minutes: float | None = None
    seconds: float | None = None
    reason: str = ""
    failed: bool = False


def main() -> int:
    options = _options()
    weights = {"resnet50": "resnet50", "resnet101": "resnet101"} | dict(_weights(text) for text in options.backbone_weights)
    places = Places(options.data, options.workspace, weights)
    recipes = [RECIPES[name] for name in options.backbones.split(",")]
    gpu, rows = _gpu(), list[Row]()
    try:
        for recipe in recipes:
            rows += measure(recipe, places, gpu is not None)
            write_text(options.to, document(rows, recipes, this_machine(gpu), date.today()))
    except KeyboardInterrupt:
        say("interrupted; go on with the same command")
        return INTERRUPTED
    except Dlv3Error as error:
        say(f"error: {error}")
        return error.exit_code
    figures = [row.scores["miou"] for row in rows if row.scores]
    best = f", best val mIoU {max(figures):.4f}" if figures else ""
    say(f"wrote {options.to}; {len(figures)} of {len(rows)} rows measured{best}")
    return 1 if any(row.failed for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of CamVid, SegNet's split")
    parser.add_argument("--workspace", type=Path, required=True, help="where the trainings lie")
    parser.add_argument(
        "--backbone-weights",
        action="append",
        default=[],
        metavar="[BACKBONE=]FILE",
        help="MobileNetV2's state dict, or another backbone's; ResNets' are fetched by name otherwise",
    )
    parser.add_argument("--backbones", default="mobilenet_v2", help=f"some of {','.join(RECIPES)} (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=TABLE, help="the table's file (default: benchmarks/results/camvid.md)")
    options = parser.parse_args()
    if strange := [name for name in options.backbones.split(",") if name not in RECIPES]:
        parser.error(f"backbone {strange[0]!r} is none of {', '.join(RECIPES)}")
    return options


def _weights(text: str) -> tuple[str, str]:
    backbone, sign, file = text.partition("=")
    return (backbone, file) if sign and backbone in RECIPES else ("mobilenet_v2", text)


def _gpu() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return None
    count = torch.cuda.device_count()  # training takes all of them
    return f"{count}× {torch.cuda.get_device_name()}" if count > 1 else torch.cuda.get_device_name()


def measure(recipe: Recipe, places: Places, has_gpu: bool) -> list[Row]:
    """A row for each inference, measured or with the reason why not."""
    commands = [(inference, recipe.evaluation(inference)) for inference in INFERENCES]
    if recipe.needs_gpu and not has_gpu:
        return [Row(recipe.network, i.name, command, reason="not run: needs a GPU") for i, command in commands]
    try:
        minutes = sum(_trained(stage, places) for stage in recipe.stages)
    except Dlv3Error as error:
        reason = f"not trained: {places.hide(str(error))}"
        return [Row(recipe.network, i.name, command, reason=reason, failed=True) for i, command in commands]
    return [_judged(recipe.network, inference, command, minutes, places) for inference, command in commands]


def _trained(stage: Stage, places: Places) -> float:
    """Minutes of the training, which is run, gone on with, or there already. Raises UserError."""
    (workspace,) = (Path(folder) for folder in places.fill([stage.place]))
    found = standing(workspace, stage.options)
    if found != "finished":
        command = [*stage.command, *(["--resume"] if found == "stopped" else [])]
        if missing := [word for word in places.fill(command) if word.endswith("_WEIGHTS")]:
            raise UserError(missing[0], "stands for weights that were not given", "give --backbone-weights")
        say(f"dlv3deploy {' '.join(command)}")
        if code := run_to_its_end([*PROGRAM, *places.fill(command)]):
            raise UserError("`train`", f"ended with exit code {code}", "its message was printed on stderr")
    return training_minutes(workspace)


def run_to_its_end(command: Sequence[str]) -> int:
    """The exit code. Ctrl-C reaches the program as well, which then saves what it has: it is waited for."""
    with subprocess.Popen(command) as process:
        interrupted = False
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                interrupted = True
    if interrupted or code == INTERRUPTED:
        raise KeyboardInterrupt
    return code


def _judged(network: str, inference: Inference, command: Command, minutes: float, places: Places) -> Row:
    say(f"dlv3deploy {' '.join(command)}")
    started = time.monotonic()
    code, out, err = output_of([*PROGRAM, *places.fill(command), "--json"])
    seconds = time.monotonic() - started
    try:
        scores = json.loads(out) if code == 0 else None
    except ValueError:
        scores = None
    if scores is not None:
        return Row(network, inference.name, command, scores, minutes, seconds)
    said = [line.strip(" │") for line in err.splitlines() if line.strip(" │╭╰╮╯─")]
    reason = f"failed: exit code {code}, {places.hide(said[-1]) if said else 'no message'}"
    return Row(network, inference.name, command, None, minutes, None, reason, failed=True)


def output_of(command: Sequence[str]) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def document(rows: Sequence[Row], recipes: Sequence[Recipe], machine: Machine, day: date) -> str:
    """The whole page; nothing in it tells where files lie on the machine."""
    header = ("network", "inference", "val mIoU", "pixel accuracy", "training, min", "evaluation, s", "command")
    measured = [row.scores for row in rows if row.scores]
    about = "; ".join(dict.fromkeys(f"{scores['images']} validation images, {scores['engine']}" for scores in measured))
    trainings = [f"    dlv3deploy {' '.join(stage.command)}" for recipe in recipes for stage in recipe.stages]
    return "\n".join(
        (
            "# DeepLabv3 on CamVid",
            "",
            *(f"- {line}" for line in (*machine.lines(), f"date: {day.isoformat()}")),
            f"- judged on: {about or 'nothing'}",
            "",
            markdown_table(header, [_cells(row) for row in rows]),
            "",
            "mIoU and accuracy are fractions of 1. Training minutes are those of `train/metrics.csv`, with all validations but",
            "the last, on the machine that trained; evaluation seconds are the whole command's, start included. What trains:",
            "",
            *trainings,
            "",
            "`CAMVID` is the data set's folder, `WORKSPACE` a folder for the results, and `…_WEIGHTS` a state dict of the",
            "backbone, for ResNets also a name of `dlv3deploy import-weights --list`. Written by `benchmarks/camvid.py`.",
            "",
        )
    )


def _cells(row: Row) -> tuple[str, ...]:
    command = f"`dlv3deploy {' '.join(row.command)}`"
    minutes = NONE if row.training_minutes is None else f"{row.training_minutes:.1f}"
    if row.scores is None or row.seconds is None:
        return row.network, row.inference, row.reason, NONE, minutes, NONE, command
    miou, accuracy = row.scores["miou"], row.scores["pixel_accuracy"]
    return row.network, row.inference, f"{miou:.4f}", f"{accuracy:.4f}", minutes, f"{row.seconds:.1f}", command


if __name__ == "__main__":
    sys.exit(main())
