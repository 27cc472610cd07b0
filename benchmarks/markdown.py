"""Markdown tables that are readable as plain text too."""

from __future__ import annotations

from collections.abc import Sequence

from hidden_paths import without_paths

NONE = "–"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell; a bar inside a cell is escaped."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join((lines[0], rule, *lines[1:]))


def page(title: str, facts: Sequence[str], table: str, explained: str, script: str) -> str:
    """What a script leaves in `results/`: on what it was measured, the table, what its columns mean; no path of the machine."""
    lines = [f"# {title}", "", *(f"- {fact}" for fact in facts), "", table, "", explained, "", f"Written by `{script}`.", ""]
    return without_paths("\n".join(lines))


def points(share: float) -> str:
    """Hundredths, with a minus sign that lines up, and none before a zero."""
    return f"{round(100 * share, 2) + 0.0:.2f}".replace("-", "−")


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def with_error(share: float, error: float | None) -> str:
    """In points, with its standard error where there is one."""
    return f"{points(share)} ± {NONE if error is None else points(error)}"
