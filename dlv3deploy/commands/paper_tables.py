"""How `dlv3deploy paper` shows a table: laid out as the paper's, with what was measured here beside what was published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dlv3deploy.core.errors import StaleArtefact
from dlv3deploy.core.paper.recipe import Recipe, Stage
from dlv3deploy.core.paper.results import read_miou
from dlv3deploy.core.paper.table import NO, YES, System, Table
from dlv3deploy.core.progress import say
from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from rich.table import Table as RichTable

NOT_MEASURED = "–"
Rows = Sequence[Recipe | System]
Here = dict[str, float | None]  # by the recipe's name, the mIoU measured in this workspace, 0 to 1


def measured(rows: Rows, workspace: Workspace) -> Here:
    """What was measured here. Results of another recipe count as none, and that is said."""
    found: Here = {}
    refused: list[str] = []
    for recipe in (row for row in rows if isinstance(row, Recipe)):
        try:
            found[recipe.name] = read_miou(workspace, recipe)
        except StaleArtefact as error:
            found[recipe.name] = None
            refused.append(str(error))
    for line in dict.fromkeys(refused):  # recipes that share a training share its file
        say(f"left out: {line}")
    return found


def table_facts(table: Table, rows: Rows, here: Here) -> dict[str, Any]:
    """`rows` of the table for JSON, with fractions of 0 to 1."""
    return {"table": table.number, "title": table.title, "rows": [_row_facts(table, row, here) for row in rows]}


def _row_facts(table: Table, row: Recipe | System, here: Here) -> dict[str, Any]:
    labels = {column: label for column, label in zip(table.columns, row.labels, strict=True) if column}
    published = round(row.published / 100, 4)
    if isinstance(row, System):
        return {"name": None, "labels": labels, "published": published, "ours": None}
    return {
        "name": row.name,
        "labels": labels,
        "published": published,
        "ours": here[row.name],
        "training": row.training_name,
        "stages": [asdict(stage) for stage in row.stages],
        "inference": {"name": row.inference.name, **asdict(row.inference)},
        "measured_on": row.measured_on,
        "note": row.note,
    }


def print_table(table: Table, here: Here, workspace: Workspace) -> None:
    from dlv3deploy.commands.tables import print_table as print_any

    notes = dict.fromkeys(recipe.note for recipe in table.recipes if recipe.note)
    body = _grid(table, here) if table.is_grid else _list(table, here)
    print_any(f"Table {table.number}: {table.title}\nmIoU in percent", body, tuple(notes))
    example = table.recipes[-1].name.split("/")[1]
    print(f"a row in full: {workspace.command('paper', f'table{table.number}', '--row', example)}")


def _grid(table: Table, here: Here) -> RichTable:
    from rich.table import Table as RichTable

    lines = dict.fromkeys(row.labels[0] for row in table.rows)
    across = dict.fromkeys(row.labels[1] for row in table.rows)
    cells = {recipe.labels: recipe for recipe in table.recipes}
    shown = RichTable(table.columns[0] or table.columns[1], "")
    for column in across:
        shown.add_column(column, justify="right")
    for line in lines:
        recipes = [cells[line, column] for column in across]
        shown.add_row(line, "paper", *(_percent(recipe) for recipe in recipes))
        shown.add_row("", "here", *(_measured(recipe, here) for recipe in recipes))
    return shown


def _list(table: Table, here: Here) -> RichTable:
    from rich.table import Table as RichTable

    shown = RichTable()
    for index, column in enumerate(table.columns):
        marked = all(row.labels[index] in (YES, NO) for row in table.rows)
        shown.add_column(column, justify="center" if marked else "left")
    for column in ("paper", "here"):
        shown.add_column(column, justify="right")
    for row in table.rows:
        shown.add_row(*row.labels, _percent(row), _measured(row, here))
    return shown


def _percent(row: Recipe | System) -> str:
    """With the paper's decimals: one on the test set, two on val."""
    on_val = isinstance(row, Recipe) and row.measured_on == "voc-val"
    return f"{row.published:.{2 if on_val else 1}f}"


def _measured(row: Recipe | System, here: Here) -> str:
    miou = here.get(row.name) if isinstance(row, Recipe) else None
    return NOT_MEASURED if miou is None else f"{100 * miou:.2f}"


def print_recipe(recipe: Recipe, here: Here) -> None:
    """One row in full."""
    from rich.table import Table as RichTable

    from dlv3deploy.commands.tables import print_table as print_any

    shown = RichTable(show_header=False)
    shown.add_row("training", recipe.training_name)
    for number, stage in enumerate(recipe.stages, start=1):
        shown.add_row(f"stage {number}" if len(recipe.stages) > 1 else "stage", _stage(stage))
    inference = recipe.inference
    scales = ", ".join(f"{scale:g}" for scale in inference.scales)
    mirrored = ", mirrored as well" * inference.flip
    shown.add_row("inference", f"output stride {inference.output_stride}, scales {scales}{mirrored}, on {recipe.measured_on}")
    shown.add_row("paper", f"{_percent(recipe)} %")
    shown.add_row("here", _measured(recipe, here))
    if recipe.note:
        shown.add_row("note", recipe.note)
    print_any(recipe.name, shown)


def _stage(stage: Stage) -> str:
    network = stage.architecture
    head = f"blocks to {network.blocks}" if network.head == "cascade" else f"ASPP {network.aspp_rates}"
    pooling = " + image pooling" * (network.head == "aspp" and network.image_pooling)
    norm = "frozen" if stage.frozen_batch_norm else f"trained, momentum {stage.batch_norm_momentum:g}"
    repeated = f"\ntwice: images with {', '.join(stage.repeat_classes)}" if stage.repeat_classes else ""
    return (
        f"{network.backbone}, output stride {network.output_stride}, multi-grid {network.multi_grid}, {head}{pooling}\n"
        f"{stage.data}, {stage.steps} steps of {stage.batch_size} crops of {stage.crop}×{stage.crop}\n"
        f"learning rate {stage.learning_rate:g}, poly {stage.poly_power:g}, batch norm {norm}{repeated}"
    )
