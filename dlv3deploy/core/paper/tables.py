"""The tables of the paper by their numbers, and a row of one by its name."""

from __future__ import annotations

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.paper.cascades import TABLE1, TABLE2, TABLE3, TABLE4
from dlv3deploy.core.paper.parallels import TABLE5, TABLE6, TABLE7
from dlv3deploy.core.paper.recipe import Recipe
from dlv3deploy.core.paper.table import Table
from dlv3deploy.core.similar import did_you_mean

TABLES = {table.number: table for table in (TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, TABLE7)}


def find_recipe(table: Table, name: str) -> Recipe:
    """The recipe called `table3/block7-mg-1-2-1`, its table's name left out or not. Raises UserError."""
    wanted = name.removeprefix(f"table{table.number}/")
    names = {recipe.name.split("/")[1]: recipe for recipe in table.recipes}
    if wanted not in names:
        remedy = did_you_mean(wanted.rpartition("/")[2], names) or f"there is {', '.join(names)}"
        raise UserError(f"--row {name!r}", f"is no recipe of table {table.number}", remedy)
    return names[wanted]
