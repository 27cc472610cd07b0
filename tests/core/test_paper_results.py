"""What was measured here is shown with the recipe that reached it, and with no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlv3deploy.core.errors import StaleArtefact, UserError
from dlv3deploy.core.paper.results import read_miou, record_miou, results_path
from dlv3deploy.core.paper.tables import TABLES
from dlv3deploy.core.workspace import Workspace

COARSE, FINE = TABLES[4].recipes[:2]
SAME = next(r for r in TABLES[3].recipes if r.name == "table3/block7-mg-1-2-1")  # the figure that Table 4 begins with


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_nothing_is_measured_in_an_empty_workspace(place: Workspace) -> None:
    assert read_miou(place, COARSE) is None


def test_a_training_keeps_one_figure_for_each_inference_and_every_table_shows_it(place: Workspace) -> None:
    record_miou(place, COARSE, 0.5)
    record_miou(place, FINE, 0.6)
    record_miou(place, COARSE, 0.55)
    assert [read_miou(place, r) for r in (COARSE, FINE, SAME, TABLES[4].recipes[2])] == [0.55, 0.6, 0.55, None]
    path = place.root / "paper" / "resnet101-block7-mg-1-2-1-os-16-trainaug" / "results.json"
    assert path == results_path(place, COARSE)
    assert json.loads(path.read_text())["miou"] == {"os-16": 0.55, "os-8": 0.6}


def test_figures_of_another_schedule_are_refused_with_the_setting_that_differs(place: Workspace) -> None:
    shorter = replace(COARSE, stages=(replace(COARSE.stages[0], steps=20),))
    record_miou(place, shorter, 0.9)
    for use in (lambda: read_miou(place, COARSE), lambda: record_miou(place, COARSE, 0.8)):
        with pytest.raises(StaleArtefact, match=r"stages\[0\].steps was 20 when it was made and is 30000 now"):
            use()
    assert read_miou(place, shorter) == 0.9


def test_another_network_or_another_number_of_stages_is_another_recipe(place: Workspace) -> None:
    path = results_path(place, COARSE)
    network = replace(COARSE.stages[0].architecture, multi_grid=(1, 2, 4))
    for stages in ((replace(COARSE.stages[0], architecture=network),), COARSE.stages * 2):
        record_miou(place, replace(COARSE, stages=stages), 0.9)
        written = results_path(place, replace(COARSE, stages=stages))
        path.parent.mkdir(exist_ok=True)
        written.replace(path)
        with pytest.raises(StaleArtefact, match="stages"):
            read_miou(place, COARSE)


def test_a_setting_that_is_newer_than_the_file_is_no_difference(place: Workspace) -> None:
    record_miou(place, COARSE, 0.7)
    path = results_path(place, COARSE)
    data = json.loads(path.read_text())
    del data["stages"][0]["architecture"]["early_padding"]
    path.write_text(json.dumps(data))
    assert read_miou(place, COARSE) == 0.7


def test_the_secret_test_set_is_never_measured(place: Workspace) -> None:
    (recipe,) = TABLES[7].recipes
    record_miou(place, recipe, 0.9)
    assert read_miou(place, recipe) is None


@pytest.mark.parametrize(
    "damage",
    [[], {}, None, 3, {"stages": []}, {"miou": {}}, *({"stages": [], "miou": m} for m in (3, "a", {"os-16": "a"}, [1]))],
)
def test_damaged_results_are_named(place: Workspace, damage: Any) -> None:
    _write(place, json.dumps(damage))
    with pytest.raises(UserError, match=r"results\.json: holds damaged results"):
        read_miou(place, COARSE)


@pytest.mark.parametrize("miou", ["1.01", "-0.1", "NaN", "Infinity", "true", "null"])
def test_an_miou_lies_between_0_and_1(place: Workspace, miou: str) -> None:
    record_miou(place, COARSE, 0.5)
    _write(place, results_path(place, COARSE).read_text().replace("0.5\n", f"{miou}\n"))
    with pytest.raises(UserError, match="damaged"):
        read_miou(place, COARSE)


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000])
def test_results_that_are_no_json_are_named(place: Workspace, text: str) -> None:
    _write(place, text)
    with pytest.raises(UserError, match="is not readable JSON"):
        read_miou(place, COARSE)


def _write(place: Workspace, text: str) -> None:
    path = results_path(place, COARSE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
