"""How `auto` stands beside the best of the others on each model, and how much of it may be chance."""

from __future__ import annotations

from collections.abc import Sequence

from markdown import markdown_table, with_error
from quantization_methods import FLOAT, PEERS, Method
from quantization_rows import Row
from quantization_scores import MaskScores

AUTO = Method("ours", "auto")
HEADER = ("model", "auto loses", "best of the others", "it loses", "auto less the other")
EXPLAINED = """\
Points of mIoU, after ± standard errors as above. The others are ONNX Runtime and ModelOpt by all methods above; the best of
them is chosen with the labels at hand, of which `auto` sees none."""


def beside_the_others(rows: Sequence[Row]) -> list[str]:
    """A section of the page; empty where no model has `auto` and another."""
    cells = [line for case in dict.fromkeys(row.case for row in rows) if (line := _line([r for r in rows if r.case == case]))]
    return ["## Beside the best of the others", "", EXPLAINED, "", markdown_table(HEADER, cells), ""] if cells else []


def _line(rows: Sequence[Row]) -> tuple[str, ...] | None:
    scored = {row.title: row.scores for row in rows if isinstance(row.scores, MaskScores)}
    floats, auto = scored.get(FLOAT.title), scored.get(AUTO.title)
    others = [(peer.title, scored[peer.title]) for peer in PEERS if peer.title in scored]
    if floats is None or auto is None or not others:
        return None
    title, best = max(others, key=lambda other: other[1].miou)
    return (
        rows[0].case,
        with_error(floats.miou - auto.miou, auto.drop_error),
        title,
        with_error(floats.miou - best.miou, best.drop_error),
        with_error(best.miou - auto.miou, auto.difference_error(best)),
    )
