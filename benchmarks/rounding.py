"""Learned rounding in closed form against AdaRound by gradient descent: same convolutions, covariances and objective.

    python benchmarks/rounding.py --shared ../shared --workspace DIR
    python benchmarks/rounding.py --shared ../shared --workspace DIR --model camvid --bits 4 --iterations 10000

Weights alone are told apart: ranges, steps and biases are made the same way for all three roundings. A run without further
options writes benchmarks/results/rounding.md, any other DIR/rounding.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
from adaround import Blocks, adaround
from machine import installed, this_machine
from markdown import NONE, markdown_table, page, with_error
from numpy.typing import NDArray
from quantization_cases import Case, built_in, open_case, parse_request
from quantization_masks import UnoptimisedEngine, masks_of
from quantization_scores import RESAMPLES, MaskScores, score_masks

from dlv3deploy.calibration import weights
from dlv3deploy.calibration.method import parse_method
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.pictures import Pictures
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.calibration.rounding import learned_rounding, output_error, round_to_nearest
from dlv3deploy.calibration.weights import WeightGrid
from dlv3deploy.core.errors import Dlv3Error
from dlv3deploy.core.files import write_text
from dlv3deploy.core.graph import load_onnx
from dlv3deploy.core.images import Mask, list_images
from dlv3deploy.core.progress import say

TABLE = Path(__file__).parent / "results" / "rounding.md"
HEADER = ("model", "bits", "rounding", "error", "best of all in", "seconds", "mIoU", "drop")
METHOD = "mse+bias+rounding"
SEQUENTIAL = "closed form, `sequential`"
Rounding = Callable[[Blocks, NDArray[np.float32], Blocks, int, float], Blocks]
EXPLAINED = f"""\
- `error`: the output's expected squared error that rounding makes, Δw H Δwᵀ, as a share of the output's variance w H wᵀ; the
  geometric mean over all convolutions. `best of all in`: so many of them have the smallest error by this rounding.
- `seconds`: of rounding alone, all convolutions together.
- `mIoU`, `drop`: of the whole INT8 model by `{METHOD}`, the drop in points against FP32; after ± its standard error, by
  {RESAMPLES} draws of the judged images. The last row of each is `{METHOD}+sequential`, which `auto` takes
  nearly always: layer after layer, for what the INT8 network before passes on."""


@dataclass
class Watched:
    """A rounding that keeps what it cost: the relative error of every convolution, and seconds."""

    rounding: Rounding
    errors: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def __call__(self, weight: Blocks, steps: NDArray[np.float32], covariance: Blocks, largest: int, damping: float) -> Blocks:
        start = time.perf_counter()
        found = self.rounding(weight, steps, covariance, largest, damping)
        self.seconds += time.perf_counter() - start
        variance = output_error(weight, np.zeros_like(weight), covariance).sum()
        if variance > 0:  # a convolution that reads constants has no error to compare
            self.errors.append(float(output_error(weight, found, covariance).sum() / variance))
        return found


def roundings(iterations: int) -> dict[str, Rounding]:
    def nearest(weight: Blocks, steps: NDArray[np.float32], _covariance: Blocks, largest: int, _damping: float) -> Blocks:
        return round_to_nearest(weight, steps, largest)

    def by_gradient(weight: Blocks, steps: NDArray[np.float32], covariance: Blocks, largest: int, _damping: float) -> Blocks:
        return adaround(weight, steps, covariance, largest, iterations=iterations)

    return {"to nearest": nearest, "closed form": learned_rounding, f"AdaRound, {iterations} iterations": by_gradient}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shared", type=Path, required=True, help="folder with the models and data of the built-in names")
    add("--workspace", type=Path, required=True)
    add("--model", action="append", default=[], help="a built-in name, may be repeated; default: camvid and camvid-twin")
    add("--bits", type=int, action="append", default=[], choices=(4, 8), help="of weights; default: both")
    add("--iterations", type=int, default=1000, help="of AdaRound (default: %(default)s, a tenth of the paper's)")
    add("--images", type=int, default=64, help="that calibrate (default: %(default)s)")
    add("--every", type=int, default=1, help="judge every so many-th image (default: all)")
    options = parser.parse_args()
    try:
        return _measure(parser, options)
    except Dlv3Error as error:
        say(f"error: {error}")
        return error.exit_code


def _measure(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    known, rows = built_in(options.shared), list[tuple[str, ...]]()
    is_whole = all(
        getattr(options, name) == parser.get_default(name) for name in ("model", "bits", "images", "every", "iterations")
    )
    to = TABLE if is_whole else options.workspace / "rounding.md"
    facts = [*this_machine(None).lines(), f"onnxruntime {installed('onnxruntime')}"]
    facts += [f"date: {date.today().isoformat()}", f"command: `python benchmarks/rounding.py {shlex.join(sys.argv[1:])}`"]
    for name in options.model or ("camvid", "camvid-twin"):
        case = open_case(parse_request(name, known, None, None), options.workspace / name, options.images, options.every, None)
        with UnoptimisedEngine(case.model.read_bytes(), case.spec, name) as engine:
            floats = masks_of(engine, case.judged)
        facts.append(f"{name}: {case.about}")
        for bits in options.bits or (8, 4):
            rows += _compared(case, bits, floats, options.iterations)
            table, title = markdown_table(HEADER, rows), "Learned rounding, in closed form and by gradient descent"
            write_text(to, page(title, facts, table, EXPLAINED, "benchmarks/rounding.py"))
    say(f"wrote {to}")
    return 0


def _compared(case: Case, bits: int, floats: list[Mask], iterations: int) -> list[tuple[str, ...]]:
    """A row for each rounding, whose errors are of one model's convolutions and can be compared one by one, and one for layers
    rounded one after another."""
    network = Network.prepared(load_onnx(case.model), *case.size)
    pictures = Pictures(list_images(case.images), case.spec.input, "calibrating")
    watched: dict[str, Watched] = {}
    scores: dict[str, MaskScores] = {}

    def judge(name: str, method: str) -> None:
        calibration = Calibration(network, pictures)  # which keeps what it learned, so each rounding has one of its own
        quantisation = calibration.quantise(parse_method(method, WeightGrid(bits)))
        with UnoptimisedEngine(quantisation.model().SerializeToString(), case.spec, name) as engine:
            scores[name] = score_masks(masks_of(engine, case.judged), case.labels, floats, case.spec.classes)

    float_scores = score_masks(floats, case.labels, floats, case.spec.classes)
    for name, rounding in roundings(iterations).items():
        say(f"{case.name}, {bits} bits: {name}")
        watched[name] = weights.learned_rounding = Watched(rounding)
        judge(name, METHOD)
    say(f"{case.name}, {bits} bits: {SEQUENTIAL}")
    weights.learned_rounding = in_order = Watched(learned_rounding)
    judge(SEQUENTIAL, f"{METHOD}+sequential")
    errors = np.array([each.errors for each in watched.values()])  # roundings × convolutions
    best = np.bincount(errors.argmin(axis=0), minlength=len(watched))
    told = {
        name: (f"{np.exp(np.log(errors[index]).mean()):.2e}", f"{best[index]} of {errors.shape[1]}", f"{found.seconds:.1f}")
        for index, (name, found) in enumerate(watched.items())
    }
    told[SEQUENTIAL] = (NONE, NONE, f"{in_order.seconds:.1f}")  # its weights aim at others than the float ones
    return [
        (
            *(case.name, str(bits), name, *cells, f"{scores[name].miou:.4f}"),
            with_error(float_scores.miou - scores[name].miou, scores[name].drop_error),
        )
        for name, cells in told.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
