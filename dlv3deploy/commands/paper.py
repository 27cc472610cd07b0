"""`dlv3deploy paper`: the figure and the tables of the DeepLabv3 paper (Chen et al. 2017, arXiv 1706.05587)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dlv3deploy.commands.options import LARGEST_SIDE, JsonOption, WorkspaceOption, given_options
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace

FIGURE_MAP, FIGURE_KERNEL, FIGURE_RATES = 65, 3, "1..100"  # the paper's
LARGEST_KERNEL = 31
IN_TEXT = (1, 6, 12, 18, 24, 36, 48, 64, 96)  # the paper's rates at output strides 16 and 8, and Figure 4's turning points


_tables = functools.partial(typer.Option, rich_help_panel="Tables")
_figure = functools.partial(typer.Option, rich_help_panel="Figure 4")


class What(str, Enum):
    """What of the paper to show."""

    FIGURE4 = "figure4"
    TABLE1 = "table1"
    TABLE2 = "table2"
    TABLE3 = "table3"
    TABLE4 = "table4"
    TABLE5 = "table5"
    TABLE6 = "table6"
    TABLE7 = "table7"
    NETWORKS = "networks"


TABLES = "the tables"
OF_RUNS = ("data", "coco", "accumulate", "compiled", "workers")
OWNERS = {
    What.FIGURE4.value: ("map_size", "kernel", "rates", "to"),
    What.NETWORKS.value: ("markdown",),
    TABLES: ("row", "run", "smoke", *OF_RUNS),
}


def paper(
    context: typer.Context,
    what: Annotated[What, typer.Argument(help="Figure 4, a table of results, or the sizes of published networks.")],
    workspace: WorkspaceOption = DEFAULT_ROOT,
    json_output: JsonOption = False,
    row: Annotated[str | None, _tables(help="One row in full, such as block7-mg-1-2-1 of table3.")] = None,
    run: Annotated[bool, _tables("--run", help="Train and evaluate the row (or every row); goes on where it stopped.")] = False,
    smoke: Annotated[
        bool, _tables("--smoke", help="Run every row (or one) for two steps, an eighth as wide, on generated data.")
    ] = False,
    data: Annotated[Path | None, _tables(help="For --run: PASCAL VOC 2012 with SBD; default: voc, as train finds it.")] = None,
    coco: Annotated[Path | None, _tables(help="For --run: COCO 2017; default: coco, as train finds it.")] = None,
    accumulate: Annotated[int, _tables(help="For --run: passes over which a batch of 16 is spread.", min=1)] = 1,
    compiled: Annotated[bool, _tables("--compile", help="For --run: compile the network with torch.compile.")] = False,
    workers: Annotated[int, _tables(help="For --run: processes that read images.", min=0)] = 4,
    markdown: Annotated[bool, typer.Option("--markdown", help="Networks: the table as Markdown.")] = False,
    map_size: Annotated[int | None, _figure("--map", help="Side of the feature map; default: 65.")] = None,
    kernel: Annotated[int | None, _figure(help="Side of the filter, odd; default: 3.")] = None,
    rates: Annotated[str | None, _figure(help="Atrous rates, as 1..100 (the default) or 6,12,18.")] = None,
    to: Annotated[Path | None, _figure(help=".png, .svg or .pdf file; default: paper/figure4.png in the workspace.")] = None,
) -> None:
    """Show the DeepLabv3 paper's Figure 4, or a table of its results beside what was measured here, or measure it."""
    _require_own_options(what, given_options(context))
    if what is What.FIGURE4:
        size = FIGURE_MAP if map_size is None else map_size
        chosen = FIGURE_KERNEL if kernel is None else kernel
        _figure4(workspace, json_output, size, chosen, parse_rates(FIGURE_RATES if rates is None else rates), to)
    elif what is What.NETWORKS:
        from dlv3deploy.commands.paper_networks import print_networks

        print_networks(json_output, markdown)
    else:
        number = int(what.value.removeprefix("table"))
        if smoke:
            from dlv3deploy.commands.paper_smoke import smoke_table

            smoke_table(number, row, json_output)
            return
        if run:
            from dlv3deploy.commands.paper_runs import Machine, run_table

            run_table(number, row, workspace, data, coco, Machine(accumulate, compiled, workers))
        _table(number, workspace, json_output, row)


def _require_own_options(what: What, given: Mapping[str, str]) -> None:
    """Raise UserError for an option that would have no effect: of something else, or of a run where there is none."""
    from dlv3deploy.core.errors import UserError

    own = what.value if what in (What.FIGURE4, What.NETWORKS) else TABLES
    for owner, names in OWNERS.items():
        if owner != own and (other := next((given[name] for name in names if name in given), None)):
            raise UserError(other, f"is of {owner}", f"leave it out with {what.value}")
    for one, other in (("run", "smoke"), ("json_output", "markdown")):
        if one in given and other in given:
            raise UserError(f"{given[one]} and {given[other]}", "exclude each other", "give one of them")
    if "run" not in given and (idle := [given[name] for name in OF_RUNS if name in given]):
        raise UserError(", ".join(idle), "is of a training and its evaluation", "add --run, or leave it out")


def _table(number: int, workspace: Path, json_output: bool, name: str | None) -> None:
    import json

    from dlv3deploy.commands.paper_tables import measured, print_recipe, print_table, table_facts
    from dlv3deploy.core.paper.results import read_miou
    from dlv3deploy.core.paper.tables import TABLES, find_recipe

    table, place = TABLES[number], Workspace(workspace)
    if name is None:
        rows, here = table.rows, measured(table.rows, place)
    else:
        recipe = find_recipe(table, name)
        rows, here = (recipe,), {recipe.name: read_miou(place, recipe)}
    if json_output:
        print(json.dumps(table_facts(table, rows, here), ensure_ascii=False))
    elif name is None:
        print_table(table, here, place)
    else:
        print_recipe(recipe, here)


def parse_rates(text: str) -> list[int]:
    """Atrous rates from `1..100`, `6,12,18` or both, ascending and each once. Raises UserError."""
    from dlv3deploy.core.errors import UserError

    found: set[int] = set()
    try:
        for part in text.split(","):
            first, dots, last = part.partition("..")
            low, high = int(first), int(last if dots else first)
            if not 1 <= low <= high <= LARGEST_SIDE:
                raise ValueError(part)
            found.update(range(low, high + 1))
    except ValueError:
        rule = f"is no list of atrous rates from 1 to {LARGEST_SIDE}"
        raise UserError(f"--rates {text!r}", rule, "write it as 1..100 or 6,12,18") from None
    return sorted(found)


def _figure4(workspace: Path, json_output: bool, size: int, kernel: int, rates: list[int], to: Path | None) -> None:
    import json

    from dlv3deploy.core.dilation import valid_weight_shares
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.measure.figure4 import FORMATS, draw_figure4

    if not 1 <= size <= LARGEST_SIDE:
        raise UserError(f"--map {size}", f"a map has a side of 1 to {LARGEST_SIDE}", "the paper's is --map 65")
    if kernel % 2 == 0 or not 1 <= kernel <= LARGEST_KERNEL:
        rule = f"a filter with a centre has an odd side, of 1 to {LARGEST_KERNEL}"
        raise UserError(f"--kernel {kernel}", rule, "the paper's is --kernel 3")
    path = to or Workspace(workspace).paper / "figure4.png"
    if path.suffix not in FORMATS:
        raise UserError(f"--to {path}", "is no picture that can be drawn", f"end the name in {', '.join(FORMATS)}")

    shares = valid_weight_shares(size, kernel, rates)
    if to is not None or not json_output:
        draw_figure4(path, size, kernel, rates, shares)
    if json_output:
        print(json.dumps({"map": size, "kernel": kernel, "rates": rates, "shares": shares}))
    else:
        _print_figure4(path, size, kernel, rates, shares)


def _print_figure4(path: Path, size: int, kernel: int, rates: list[int], shares: dict[int, list[float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"positions of a {size}×{size} map by the valid weights of a {kernel}×{kernel} filter"
    shown = [n for n in shares if kernel <= 3 or n in (1, (kernel // 2 + 1) ** 2, kernel**2)]
    table = Table("rate", *(str(n) for n in shown), title=title, title_justify="left")
    for column in table.columns:
        column.justify = "right"
    for index in _rows(rates):
        cells = (f"{shares[n][index]:.1%}" if shares[n][index] else "·" for n in shown)
        table.add_row(str(rates[index]), *cells)
    console = Console()
    console.print(table)
    console.print(f"drawn to {path}", highlight=False, markup=False, soft_wrap=True)


def _rows(rates: Sequence[int]) -> list[int]:
    """Which rates the table shows: all of a few, else the paper's and both ends."""
    if len(rates) <= len(IN_TEXT):
        return list(range(len(rates)))
    return [i for i, rate in enumerate(rates) if rate in IN_TEXT or i in (0, len(rates) - 1)]
