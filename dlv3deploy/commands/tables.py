"""Tables for people: whatever the terminal's width, no value is cut and no title is broken."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

UNBOUNDED_WIDTH = 120  # columns in a pipe or a file, unless a table needs more
ANY_WIDTH = 1 << 16
GAP = "  "

Record = Sequence[str]  # a name and figures


def print_table(title: str, table: Table, notes: Sequence[str] = ()) -> None:
    """Print the title, the table and the notes; values are wrapped between words, and within one only where they must be."""
    _print(_console(_width(table).minimum), title, table, notes)


def print_records(title: str, header: Record, records: Sequence[Record], notes: Sequence[str] = ()) -> None:
    """Print one line for each record, or two, the name above its figures, where one would be too long."""
    table = _table_of(header)
    for record in records:
        table.add_row(*record)
    needed = _width(table).maximum
    console = _console(needed)
    _print(console, title, table if console.width >= needed else _names_above(header, records), notes)


def print_groups(title: str, header: Record, groups: Iterable[tuple[str, Sequence[Record]]]) -> None:
    """Print records in groups, each below a line that says what its records have in common."""
    table = _table_of(header)
    for common, records in groups:
        table.add_section()
        table.add_row(f"{common}:")
        for record in records:
            table.add_row(*record)
    print_table(title, table)


def _table_of(header: Record) -> Table:
    from rich.table import Table

    table = Table(*header)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _console(needed: int) -> Console:
    """stdout, which takes texts as they are; where nothing says how wide it is, it has the columns that are needed."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max(UNBOUNDED_WIDTH, needed)
    return console


def _width(table: Table) -> Measurement:
    """In columns: the least that breaks no word, and the most that the table takes."""
    from rich.console import Console

    return Console(markup=False, emoji=False, width=ANY_WIDTH).measure(table)


def _print(console: Console, title: str, body: Table | str, notes: Sequence[str]) -> None:
    if not isinstance(body, str):
        for column in body.columns:
            column.overflow = "fold"
    console.print(title, soft_wrap=True, style="italic")
    console.print(body, soft_wrap=isinstance(body, str))
    for note in notes:
        console.print(note)


def _names_above(header: Record, records: Sequence[Record]) -> str:
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in list(zip(header, *records, strict=True))[1:]]
    lines = []
    for name, *figures in (header, *records):
        lines += [name, GAP + GAP.join(figure.rjust(width) for figure, width in zip(figures, widths, strict=True))]
    return "\n".join(lines)
