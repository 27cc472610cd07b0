"""What was measured here: `results.json` in the folder of a training, one mIoU for each inference strategy.

    {"stages": […], "miou": {"os-16": 0.7703, "os-8-ms-flip": 0.7960}}

The stages are stored with it: figures of a training by another recipe are never shown as this one's.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dlv3deploy.core.errors import StaleArtefact, UserError
from dlv3deploy.core.files import read_json, write_json
from dlv3deploy.core.paper.recipe import Recipe
from dlv3deploy.core.workspace import Workspace

REMEDY = "delete it, and run the recipe again"


def results_path(workspace: Workspace, recipe: Recipe) -> Path:
    return workspace.paper / recipe.training_name / "results.json"


def read_miou(workspace: Workspace, recipe: Recipe) -> float | None:
    """The mIoU, 0 to 1, that the recipe reached here; None where it was not measured, and always on VOC's secret test set.

    Raises UserError when the file is damaged, StaleArtefact when it is of another recipe.
    """
    path = results_path(workspace, recipe)
    if recipe.measured_on != "voc-val" or not path.exists():
        return None
    return _read(path, recipe).get(recipe.inference.name)


def record_miou(workspace: Workspace, recipe: Recipe, miou: float) -> None:
    """Add one figure, 0 to 1, to those of the recipe's training. Raises like `read_miou`."""
    path = results_path(workspace, recipe)
    known = _read(path, recipe) if path.exists() else {}
    write_json(path, {"stages": _stages(recipe), "miou": known | {recipe.inference.name: miou}})


def _read(path: Path, recipe: Recipe) -> dict[str, float]:
    data = read_json(path)
    try:
        stages, figures = data["stages"], dict(data["miou"])
        if not all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1 for x in figures.values()):
            raise ValueError(f"mIoU {figures}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(str(path), f"holds damaged results ({error})", REMEDY) from error
    if (difference := _difference(stages, _stages(recipe), "stages")) is not None:
        field, found, expected = difference
        raise StaleArtefact(str(path), field, found, expected, REMEDY)
    return figures


def _stages(recipe: Recipe) -> Any:
    return json.loads(json.dumps([asdict(stage) for stage in recipe.stages]))


def _difference(found: Any, expected: Any, field: str) -> tuple[str, Any, Any] | None:
    """The first field that differs. A setting that is newer than the file, and so missing in it, is no difference."""
    if isinstance(found, dict) and isinstance(expected, dict):
        pairs = [(f"{field}.{name}", value, expected.get(name)) for name, value in found.items()]
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = [(f"{field}[{i}]", *pair) for i, pair in enumerate(zip(found, expected, strict=True))]
    else:
        return None if found == expected else (field, found, expected)
    return next((d for name, one, other in pairs if (d := _difference(one, other, name)) is not None), None)
