"""A compiled plan as a picture: what every kernel moves, one plan above the other, the places where they differ marked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.core.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
COLOURS = {"Float": "#c8553d", "Half": "#e0a458", "BFloat16": "#b58a3f", "Int8": "#3f8f6b"}
OTHER, TEXT, GRID, MARK = "#a9aeb6", "#3a3d42", "#e9eaec", "#f3f0e7"


@dataclass(frozen=True)
class Bar:
    """A kernel: the bytes that it moves, the type that most of them are of, and whether it multiplies."""

    bytes: int
    type: str
    is_convolution: bool
    is_changed: bool = False


def draw_plans(path: Path, plans: Sequence[tuple[str, Sequence[Bar]]]) -> None:
    """Write the picture of one plan or two, each a title and its kernels in the order in which they run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2 * len(plans)), layout="constrained")
    panels = figure.subplots(len(plans), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (title, bars) in zip(panels, plans, strict=True):
        _draw(axes, title, bars)
    panels[-1].set_xlabel("kernel, in the order in which they run", color=TEXT)
    shown = [bar for _, bars in plans for bar in bars]
    _legend(panels[0], {bar.type for bar in shown}, any(bar.is_changed for bar in shown))
    with replacing(path) as partial:
        figure.savefig(partial, dpi=160, format=path.suffix[1:])


def _draw(axes: Axes, title: str, bars: Sequence[Bar]) -> None:
    for place, bar in enumerate(bars):
        if bar.is_changed:
            axes.axvspan(place - 0.5, place + 0.5, color=MARK, linewidth=0, zorder=0)
    heights = [bar.bytes / 1e6 for bar in bars]
    colours = [COLOURS.get(bar.type, OTHER) for bar in bars]
    drawn = axes.bar(range(len(bars)), heights, width=0.8, color=colours, zorder=2)
    for patch, bar in zip(drawn, bars, strict=True):
        if not bar.is_convolution:
            patch.set(hatch="////", edgecolor="white", linewidth=0)
    axes.set_title(title, color=TEXT, fontsize=10, loc="left")
    axes.set_ylabel("MB moved", color=TEXT)
    axes.set_xlim(-0.7, len(bars) - 0.3)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(OTHER)


def _legend(axes: Axes, types: Collection[str], has_changes: bool) -> None:
    from matplotlib.patches import Patch

    known = [Patch(color=colour, label=name) for name, colour in COLOURS.items() if name in types]
    further = [Patch(color=OTHER, label="other types")] if set(types) - set(COLOURS) else []
    hatched = Patch(facecolor=OTHER, hatch="////", edgecolor="white", linewidth=0, label="no convolution")
    changed = [Patch(color=MARK, label="differs from the other plan")] if has_changes else []
    axes.legend(
        handles=[*known, *further, hatched, *changed], frameon=False, labelcolor=TEXT, ncols=5, fontsize=8, loc="upper right"
    )
