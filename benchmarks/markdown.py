"""Markdown tables that are readable as plain text too."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "–"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell; a bar inside a cell is escaped."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join((lines[0], rule, *lines[1:]))


def points(share: float) -> str:
    """Hundredths, with a minus sign that lines up, and none before a zero."""
    return f"{round(100 * share, 2) + 0.0:.2f}".replace("-", "−")


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def with_error(share: float, error: float | None) -> str:
    """In points, with its standard error where there is one."""
    return f"{points(share)} ± {NONE if error is None else points(error)}"
