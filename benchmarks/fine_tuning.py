"""What `train --quantize` brings back of what calibration loses, on CamVid: the commands of a user, one after another.

    python benchmarks/fine_tuning.py --shared ../shared --workspace DIR

Writes benchmarks/results/fine-tuning.md; with `--steps`, which tries it out, DIR/fine-tuning.md.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from machine import installed, this_machine
from markdown import markdown_table, page
from measured import MB, Limits, Outcome, last_words, run_measured
from quantization_cases import Request, built_in

from dlv3deploy.core.errors import CheckFailed, Dlv3Error
from dlv3deploy.core.files import write_text
from dlv3deploy.core.progress import say

TABLE = Path(__file__).parent / "results" / "fine-tuning.md"
HEADER = ("model", "calibrated by", "float", "calibrated", "fine-tuned", "steps of 4 images", "minutes", "MB")
DLV3DEPLOY = (sys.executable, "-m", "dlv3deploy")
LIMITS = Limits(7200, 20_000)
TUNED = re.compile(r"validation mIoU: calibrated (0\.\d+), fine-tuned \d+ steps (0\.\d+)")
EXPLAINED = f"""\
- `float`, `calibrated`, `fine-tuned`: mIoU on all validation images, of the INT8 files as `train --quantize` prints it.
- `minutes` and `MB` ({MB:.0e} bytes, the largest resident memory) are those of `train --quantize`, measuring included.
- Where `fine-tuned` is more than `float`, it is for more training, not for INT8."""


@dataclass(frozen=True)
class Tuned:
    """What is calibrated and how, and how many steps follow."""

    model: str
    method: tuple[str, ...]
    steps: int


CASES = (
    Tuned("camvid", ("--method", "mse", "--weight-bits", "4"), 200),
    Tuned("camvid-twin", ("--method", "min-max"), 300),
    Tuned("camvid", ("--method", "min-max"), 100),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with the models and data of the built-in names")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--images", type=int, default=48, help="that calibrate (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="of every row, to try the script out")
    options = parser.parse_args()
    to = TABLE if options.steps is None else options.workspace / "fine-tuning.md"
    known, rows = built_in(options.shared), list[tuple[str, ...]]()
    facts = [*this_machine(None).lines(), f"onnxruntime {installed('onnxruntime')}", f"date: {date.today().isoformat()}"]
    facts.append(f"command: `python benchmarks/fine_tuning.py {shlex.join(sys.argv[1:])}`")
    facts.append(f"calibrated on {options.images} training images; one step for each output channel's weights")
    try:
        for number, case in enumerate(CASES):
            place = options.workspace / f"fine-tuning-{number}"
            rows.append(_row(known[case.model], case, options.steps or case.steps, place, options.images))
            table = markdown_table(HEADER, rows)
            write_text(to, page("Fine-tuning INT8 models on CamVid", facts, table, EXPLAINED, "benchmarks/fine_tuning.py"))
    except Dlv3Error as error:
        say(f"error: {error}")
        return error.exit_code
    say(f"wrote {to}")
    return 0


def _row(request: Request, case: Tuned, steps: int, place: Path, images: int) -> tuple[str, ...]:
    say(f"{case.model}, {shlex.join(case.method)}")
    judged = ("evaluate", str(request.model), "--data", str(request.data), *request.description, "--json")
    plain = subprocess.run([*DLV3DEPLOY, *judged], check=True, capture_output=True, text=True).stdout
    given = (*request.description, "--images", str(request.images), "--calibration-images", str(images), "--no-report")
    _run("calibrate", str(request.model), *given, *case.method, "--workspace", str(place))
    tuned = _run(
        *("train", str(request.data), "--quantize", "--from", str(request.model)),
        *("--steps", str(steps), "--workspace", str(place)),
    )
    found = TUNED.search(tuned.stderr)
    if found is None:
        raise CheckFailed(f"train --quantize did not say what it reached: {last_words(tuned.stderr)}")
    reached = json.loads(plain)["miou"], *map(float, found.groups())
    return (
        *(case.model, f"`{shlex.join(case.method)}`", *(f"{value:.4f}" for value in reached)),
        *(str(steps), f"{tuned.seconds / 60:.1f}", str(tuned.peak_mb)),
    )


def _run(*words: str) -> Outcome:
    """A command of dlv3deploy. Raises CheckFailed when it ends with anything but 0."""
    outcome = run_measured([*DLV3DEPLOY, *words], LIMITS)
    if outcome.end != "done":
        raise CheckFailed(f"dlv3deploy {shlex.join(words)}: {outcome.end}, {last_words(outcome.stderr)}")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
