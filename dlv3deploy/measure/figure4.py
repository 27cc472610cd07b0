"""The paper's Figure 4 as a picture: how many weights of a filter read the map as its atrous rate grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.core.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#c8553d", "#3f8f6b", "#34567f")  # the centre alone, a corner of the filter, all of it
OTHERS, TEXT, GRID = "#a9aeb6", "#3a3d42", "#e9eaec"
FEW = 4  # as many other numbers are named one by one


def draw_figure4(path: Path, size: int, kernel: int, rates: Sequence[int], shares: Mapping[int, Sequence[float]]) -> None:
    """Write the picture; `shares` are those of `core.dilation.valid_weight_shares`, one list per number of valid weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.5), layout="constrained")
    axes = figure.add_subplot()
    main = dict(zip(sorted({1, (kernel // 2 + 1) ** 2, kernel**2}), COLOURS, strict=False))
    others = [n for n in shares if n not in main]
    dots = "o" if len(rates) == 1 else "None"
    for weights, colour in main.items():
        name = f"{weights} valid weight{'s' * (weights > 1)}"
        axes.plot(rates, shares[weights], marker=dots, color=colour, linewidth=2.3, clip_on=False, zorder=3, label=name)
    for weights in others:
        name = ", ".join(map(str, others)) if len(others) <= FEW else "other numbers"
        label = name if weights == others[0] else None
        axes.plot(rates, shares[weights], marker=dots, color=OTHERS, linewidth=1, clip_on=False, zorder=2, label=label)
        if len(others) <= FEW and max(shares[weights]) > 0:
            _name_peak(axes, rates, shares[weights], str(weights))
    _dress(axes, max(rates), f"Valid weights of a {kernel}×{kernel} filter on a {size}×{size} feature map")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=160, format=path.suffix[1:])


def _name_peak(axes: Axes, rates: Sequence[int], shares: Sequence[float], name: str) -> None:
    peak = max(range(len(rates)), key=lambda i: shares[i])
    place = (rates[peak], shares[peak])
    axes.annotate(name, place, textcoords="offset points", xytext=(0, 4), ha="center", color=OTHERS, fontsize=9)


def _dress(axes: Axes, largest_rate: int, title: str) -> None:
    axes.set(xlim=(0, largest_rate), ylim=(0, 1))
    axes.set_xlabel("atrous rate", color=TEXT)
    axes.set_ylabel("normalised count", color=TEXT)
    axes.set_title(title, color=TEXT, fontsize=11, pad=12)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(OTHERS)
    axes.legend(frameon=False, labelcolor=TEXT)
