"""`dlv3deploy paper`: the figure and the tables of the DeepLabv3 paper (Chen et al. 2017, arXiv 1706.05587)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dlv3deploy.commands.options import JsonOption, WorkspaceOption, given_options
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace

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


def parse_what(text: str) -> What:
    """Raises typer.BadParameter that lists what there is."""
    try:
        return What(text)
    except ValueError:
        there_is = ", ".join(what.value for what in What)
        raise typer.BadParameter(f"{text!r} is nothing that is shown here; there is {there_is}") from None


def paper(
    context: typer.Context,
    what: Annotated[
        What,
        typer.Argument(
            parser=parse_what, metavar="WHAT", help="figure4, table1 to table7, or networks: the sizes of published networks."
        ),
    ],
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
    to: Annotated[
        Path | None, _figure(help=".png, .svg or .pdf file; default: in the workspace's paper/, named by its settings.")
    ] = None,
) -> None:
    """Show the DeepLabv3 paper's Figure 4, or a table of its results beside what was measured here, or measure it."""
    _require_own_options(what, given_options(context))
    if what is What.FIGURE4:
        from dlv3deploy.commands.paper_figure import Settings, show_figure4

        show_figure4(Settings.given(map_size, kernel, rates), workspace, json_output, to)
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
