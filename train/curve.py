"""The training curve as a picture: loss and validation mIoU over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlv3deploy.core.files import replacing
from dlv3deploy.train.run_state import Row

LOSS_COLOUR, MIOU_COLOUR = "#4c6a92", "#c8553d"


def draw_curve(path: Path, rows: Sequence[Row]) -> None:
    """Write a PNG of the run so far."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    losses = figure.add_subplot()
    losses.plot([r.step for r in rows], [r.loss for r in rows], color=LOSS_COLOUR, linewidth=1.2)
    losses.set(xlabel="step", ylim=(0, None), xlim=(0, None))
    losses.set_ylabel("training loss (cross entropy)", color=LOSS_COLOUR)
    validated = [(r.step, r.miou) for r in rows if r.miou is not None]
    scores = losses.twinx()
    scores.set(ylim=(0, 1))
    scores.set_ylabel("validation mIoU", color=MIOU_COLOUR)
    if validated:
        steps, mious = zip(*validated, strict=True)
        scores.plot(steps, mious, color=MIOU_COLOUR, marker="o", markersize=4)
        best = max(validated, key=lambda point: point[1])
        scores.annotate(f"{best[1]:.3f}", best, textcoords="offset points", xytext=(0, 8), ha="center", color=MIOU_COLOUR)
    for axes in (losses, scores):
        axes.spines["top"].set_visible(False)
    losses.grid(axis="y", alpha=0.25)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=130, format="png")
