"""`dlv3deploy paper tableN --smoke`: every row of a table is run from end to end in miniature, to know that it works.

The recipe stays as it is, stage after stage: output strides, blocks, unit rates, ASPP, batch norm, repeated classes, inference.
Smaller are the channels (an eighth), the pictures, the batch and the number of steps; the data are generated road scenes.
Nothing of it is recorded: the figures mean nothing.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dlv3deploy.core.errors import Dlv3Error
from dlv3deploy.core.paper.recipe import Recipe, Stage, training_name
from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from dlv3deploy.train.plan import TrainingPlan

WIDTH, ASPP_CHANNELS = 0.125, 32
STEPS, BATCH, IMAGES, VALIDATION_IMAGES = 2, 2, 3, 2
SMALLEST_SIDE = 65
HARD_CLASS = "person"  # stands for the paper's hard classes


def smoke_table(number: int, row: str | None, json_output: bool) -> None:
    """Run every row, or one, and say of each whether it works. Raises typer.Exit with 3 when one does not."""
    import json

    from dlv3deploy.core.paper.tables import TABLES, find_recipe
    from dlv3deploy.core.progress import tracked

    table = TABLES[number]
    recipes: Sequence[Recipe] = table.recipes if row is None else [find_recipe(table, row)]
    with tempfile.TemporaryDirectory(prefix="dlv3deploy-smoke-") as folder, _one_thread():
        facts = list(tracked(_facts(recipes, Path(folder)), f"table {number}", len(recipes)))
    if json_output:
        print(json.dumps({"table": number, "rows": facts}, ensure_ascii=False))
    else:
        _print(number, facts)
    if any(fact["error"] for fact in facts):
        raise typer.Exit(3)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and lose much by them beside other programs."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _facts(recipes: Sequence[Recipe], folder: Path) -> Iterator[dict[str, Any]]:
    from dlv3deploy.scenes import write_dataset

    write_dataset(folder / "data", IMAGES, VALIDATION_IMAGES, seed=0, size=(96, 128))
    for recipe in recipes:
        try:
            with redirect_stderr(io.StringIO()):  # what training says of itself, once a stage
                scores, losses = scores_shape(recipe), smoke(recipe, folder)
            yield {"name": recipe.name, "scores": scores, "losses": losses, "error": None}
        except Dlv3Error as error:
            yield {"name": recipe.name, "scores": None, "losses": None, "error": str(error)}


def scores_shape(recipe: Recipe) -> list[int]:
    """Classes × height × width of the scores that the recipe's own network, in full size, has for the paper's crop."""
    import torch

    from dlv3deploy.core.classes import VOC
    from dlv3deploy.train.network.deeplabv3 import DeepLabV3

    last = recipe.stages[-1]
    with torch.device("meta"):
        model = DeepLabV3(last.architecture.at_output_stride(recipe.inference.output_stride), len(VOC)).eval()
        return list(model(torch.zeros(1, 3, last.crop, last.crop)).shape[1:])


def smoke(recipe: Recipe, folder: Path) -> list[float]:
    """Every stage for a few steps and the inference once; the last loss of every stage. Raises as training does."""
    from dlv3deploy.commands.paper_runs import measure, train_stage
    from dlv3deploy.core.datasets import open_dataset
    from dlv3deploy.train.run_state import RunFolder

    previous: Path | None = None
    losses = []
    for count, stage in enumerate(recipe.stages, start=1):
        place = Workspace(folder / training_name(recipe.stages[:count]))
        previous = train_stage(replace(small_plan(stage, folder / "data"), start_from=previous), place)
        losses.append(RunFolder(place.training).read_losses()[-1])
    assert previous is not None  # a recipe has a stage
    measure(previous, recipe.inference, open_dataset(folder / "data", "val").samples[:1])
    return losses


def small_plan(stage: Stage, data: Path) -> TrainingPlan:
    """The stage's plan on the generated scenes, an eighth as wide."""
    from dlv3deploy.commands.paper_runs import Machine, Sources, plan_for
    from dlv3deploy.core.datasets import dataset_classes

    network = stage.architecture
    side = max(SMALLEST_SIDE, network.output_stride + 1)
    thin = replace(network, width=WIDTH, aspp_channels=ASPP_CHANNELS)
    short = replace(stage, architecture=thin, crop=side, steps=STEPS, batch_size=BATCH, repeat_classes=())
    plan = plan_for(short, Sources(data, data), Machine(workers=0))
    repeated = (HARD_CLASS,) if stage.repeat_classes else ()
    return replace(
        plan, classes=dataset_classes(data), repeat_classes=repeated, split="train", precision="32-true", validate_every=STEPS
    )


def _print(number: int, facts: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    from dlv3deploy.commands.tables import print_table

    title = f"table {number} in miniature: {STEPS} steps a stage, an eighth as wide, on generated scenes"
    table = Table("row", "scores of the full network", "losses", "")
    for fact in facts:
        losses = ", ".join(f"{loss:.2f}" for loss in fact["losses"] or [])
        shape = "×".join(map(str, fact["scores"] or []))
        table.add_row(fact["name"].partition("/")[2], shape, losses, "works" if fact["error"] is None else fact["error"])
    print_table(title, table)
