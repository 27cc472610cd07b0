"""What smoothing scores over time (`run --steady`) does to flicker and to mIoU, on CamVid's validation drive.

    python benchmarks/steadiness.py --shared ../shared [--every N]

Writes benchmarks/results/steadiness.md; with --every, which tries it out, prints the page.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
from machine import installed, this_machine
from markdown import markdown_table, page, percent
from quantization_cases import built_in, open_request, samples_of

from dlv3deploy.core import steadiness as module
from dlv3deploy.core.datasets import Sample
from dlv3deploy.core.engine import Batch, ClosingEngine, Engine, Outputs
from dlv3deploy.core.errors import Dlv3Error
from dlv3deploy.core.files import write_text
from dlv3deploy.core.images import Frame, Mask, check_label
from dlv3deploy.core.metrics import ConfusionMatrix
from dlv3deploy.core.progress import say, tracked
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.steadiness import Steadiness

TABLE = Path(__file__).parent / "results" / "steadiness.md"
SHARES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
UNGATED = 1e9  # grey levels: nothing moves
EXPLAINED = """\
- The frames are every second one of a drive at 30 frames a second, in order; and all have labels.
- `flicker`: of the pixels that have the same label in a frame and the one before it (void left out), the share whose class in
  the mask changes. `past`: `--steady`. `gated`: smoothed less where the picture changes, as `run` does; the other columns
  are plain exponential smoothing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with the models and data of the built-in names")
    parser.add_argument("--every", type=int, default=1, help="take every so many-th frame, to try the script out")
    options = parser.parse_args()
    request = built_in(options.shared)["camvid"]
    facts = [*this_machine(None).lines(), f"onnxruntime {installed('onnxruntime')}", f"date: {date.today().isoformat()}"]
    facts.append(f"command: `python benchmarks/steadiness.py {shlex.join(sys.argv[1:])}`")
    try:
        with open_request(request) as engine:
            samples = samples_of(request.data, engine.spec)[:: options.every]
            rows = _rows(engine, samples)
    except Dlv3Error as error:
        say(f"error: {error}")
        return error.exit_code
    table = markdown_table(("past", "gated: mIoU", "flicker", "everywhere: mIoU", "flicker"), rows)
    text = page("Steadier masks on CamVid's validation drive", facts, table, EXPLAINED, "benchmarks/steadiness.py")
    if options.every > 1:
        print(text)
    else:
        write_text(TABLE, text)
        say(f"wrote {TABLE}")
    return 0


def _rows(engine: Engine, samples: Sequence[Sample]) -> list[tuple[str, ...]]:
    frames, labels = zip(*(sample.read() for sample in samples), strict=True)
    for label, sample in zip(labels, samples, strict=True):
        check_label(label, engine.spec.classes, sample.label)
    recorded, rows = _Recorded(engine, frames), []
    for past in SHARES:
        cells = [f"{past:g}"]
        for moving in (module.MOVING, UNGATED):
            miou, flicker = _judged(recorded, frames, labels, past, moving)
            cells += [f"{miou:.4f}", percent(flicker)]
        rows.append(tuple(cells))
    return rows


class _Recorded(ClosingEngine):
    """Answers what `engine` said of the frames, one after the other, without asking it again."""

    def __init__(self, engine: Engine, frames: Sequence[Frame]) -> None:
        self.name, self.spec, self.input_shape = engine.name, engine.spec, engine.input_shape
        plain = Segmenter(engine)
        batches = (next(iter(plain.views(frame))).batch for frame in tracked(frames, "frames", len(frames)))
        self._outputs = [engine.infer(batch).copy() for batch in batches]
        self._next = 0

    def infer(self, batch: Batch) -> Outputs:  # noqa: ARG002 (frames come in their order)
        outputs = self._outputs[self._next % len(self._outputs)]
        self._next += 1
        return outputs


def _judged(
    recorded: _Recorded, frames: Sequence[Frame], labels: Sequence[Mask], past: float, moving: float
) -> tuple[float, float]:
    """mIoU, and the share of pixels that flicker."""
    classes = recorded.spec.classes
    before, module.MOVING = module.MOVING, moving
    segmenter, matrix, changed, still = Segmenter(recorded, steadiness=Steadiness(past)), ConfusionMatrix(classes), 0, 0
    masks = list[Mask]()
    for frame, label in zip(frames, labels, strict=True):
        masks.append(segmenter(frame))
        matrix.collect(masks[-1], label)
    module.MOVING = before
    for (old, new), (was, now) in zip(pairwise(masks), pairwise(labels), strict=True):
        same = (was == now) & (now < len(classes)) & (now != classes.ignore_index)
        still += np.count_nonzero(same)
        changed += np.count_nonzero(old[same] != new[same])
    return matrix.compute().miou, changed / still


if __name__ == "__main__":
    sys.exit(main())
