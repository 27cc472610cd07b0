"""`dlv3deploy paper networks`: parameters and multiply-accumulates of every published network, and those of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlv3deploy.train.network.published_sizes import Row

HEADING = """# Published networks and ours

Parameters in millions; G MACs are thousands of millions of multiply-accumulates of convolutions and linear layers, for one
image of size × size. "Ours" is counted on the networks that this package builds. TF-slim's parameters leave batch norm out;
VainF does not say what its counter counts. This page is what `dlv3deploy paper networks --markdown` prints.
"""


def print_networks(json_output: bool, markdown: bool) -> None:
    """The table for people, as Markdown, or as one JSON object."""
    import json

    from dlv3deploy.train.network.published_sizes import counted

    rows = list(counted())
    if json_output:
        print(json.dumps({"networks": [_facts(row) for row in rows]}, ensure_ascii=False))
    elif markdown:
        print(_markdown(rows))
    else:
        _print(rows)


def _facts(row: Row) -> dict[str, Any]:
    entry, ours = row.entry, row.ours
    published = {
        "parameters": None if entry.parameters is None else round(entry.parameters * 1e6),
        "macs": None if entry.macs is None else round(entry.macs * 1e9),
    }
    found = {"parameters": ours.parameters, "macs": ours.macs}
    return {"name": entry.name, "source": entry.source, "size": entry.size, "published": published, "ours": found}


COLUMNS = ("network", "published by", "size", "parameters, M", "ours", "G MACs", "ours")


def _cells(row: Row) -> tuple[str, ...]:
    """One line of the page."""
    name, *figures = _figures(row)
    return name + " (classifier)" * row.entry.classifier, row.entry.source, str(row.entry.size), *figures


def _pair(published: float | None, ours: float) -> tuple[str, str]:
    """Ours with the decimals that were published."""
    if published is None:
        return "–", f"{ours:.2f}"
    decimals = max(1, len(repr(published).partition(".")[2]))
    return f"{published:.{decimals}f}", f"{ours:.{decimals}f}"


def _markdown(rows: Sequence[Row]) -> str:
    lines = [COLUMNS, ("---", "---", *["--:"] * (len(COLUMNS) - 2)), *map(_cells, rows)]
    return HEADING + "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _print(rows: Sequence[Row]) -> None:
    from itertools import groupby

    from dlv3deploy.commands.tables import print_groups

    groups = ((heading, [_figures(row) for row in alike]) for heading, alike in groupby(rows, _common))
    print_groups("published networks and ours", ("network", *COLUMNS[3:]), groups)


def _common(row: Row) -> str:
    """What stands once above the networks that share it."""
    entry = row.entry
    return f"{entry.source}{', classifiers' * entry.classifier}, {entry.size}×{entry.size}"


def _figures(row: Row) -> tuple[str, ...]:
    entry, ours = row.entry, row.ours
    return entry.name, *_pair(entry.parameters, ours.parameters / 1e6), *_pair(entry.macs, ours.macs / 1e9)
