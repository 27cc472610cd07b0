"""`paper table1` to `table7`: the paper's layout and figures, what was measured here, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.core.paper.results import record_miou, results_path
from dlv3deploy.core.paper.tables import TABLES
from dlv3deploy.core.workspace import Workspace

ROWS = {1: 6, 2: 8, 3: 20, 4: 4, 5: 5, 6: 5, 7: 17}


def paper(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["paper", *(str(a) for a in arguments)], env={"COLUMNS": "120"})


def refused(*arguments: object, code: int = 1) -> str:
    done = paper(*arguments)
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def rows_of(*arguments: object) -> list[dict[str, Any]]:
    done = paper(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return rows


def cells(*arguments: object) -> list[list[str]]:
    done = paper(*arguments)
    assert done.exit_code == 0, done.stderr
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]


@pytest.mark.parametrize("number", ROWS)
def test_json_has_every_row_with_its_published_figure_and_nothing_measured(tmp_path: Path, number: int) -> None:
    rows = rows_of(f"table{number}", "--workspace", tmp_path / "none")
    assert len(rows) == ROWS[number]
    assert all(0.2 < row["published"] < 0.87 and row["ours"] is None for row in rows)
    assert not (tmp_path / "none").exists()


def test_json_of_a_row_says_all_that_is_needed_to_repeat_it(tmp_path: Path) -> None:
    (row,) = rows_of("table6", "--row", "os-8-ms-flip-coco", "--workspace", tmp_path)
    assert (row["name"], row["published"], row["ours"]) == ("table6/os-8-ms-flip-coco", 0.827, None)
    assert row["labels"] == {"OS=16": "", "OS=8": "✓", "MS": "✓", "Flip": "✓", "COCO": "✓"}
    assert [stage["data"] for stage in row["stages"]] == ["coco-voc", "voc-trainaug"]
    assert row["stages"][1]["architecture"]["multi_grid"] == [1, 2, 4]
    inference = {"name": "os-8-ms-flip", "output_stride": 8, "scales": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75], "flip": True}
    assert row["inference"] == inference


def test_json_of_table_7_lists_the_systems_in_the_papers_order(tmp_path: Path) -> None:
    rows = rows_of("table7", "--workspace", tmp_path)
    names = [row["labels"]["Method"] for row in rows]
    assert (names[0], names[11], names[-1]) == ("Adelaide_VeryDeep_FCN_VOC", "PSPNet", "DeepLabv3-JFT")
    assert [row["name"] for row in rows if row["name"]] == ["table7/deeplabv3"]
    assert {row["labels"]["Method"]: row["published"] for row in rows}["DeepLabv3"] == 0.857


def test_a_grid_has_the_papers_rows_and_columns_with_ours_below(tmp_path: Path) -> None:
    recipe = next(r for r in TABLES[3].recipes if r.name == "table3/block7-mg-1-2-1")
    record_miou(Workspace(tmp_path), recipe, 0.7512)
    printed = cells("table3", "--workspace", tmp_path)
    assert printed[2] == ["(1, 2, 1)", "paper", "70.23", "75.67", "76.09", "76.66"]
    assert printed[3] == ["", "here", "–", "–", "–", "75.12"]
    assert len(printed) == 10


def test_a_list_marks_the_strategy_as_the_paper_does_with_ours_beside(tmp_path: Path) -> None:
    record_miou(Workspace(tmp_path), TABLES[4].recipes[1], 0.7801)
    assert cells("table4", "--workspace", tmp_path) == [
        ["✓", "", "", "", "76.66", "–"],
        ["", "✓", "", "", "78.05", "78.01"],
        ["", "✓", "✓", "", "78.93", "–"],
        ["", "✓", "✓", "✓", "79.35", "–"],
    ]


def test_a_figure_is_shown_in_every_table_that_prints_it(tmp_path: Path) -> None:
    record_miou(Workspace(tmp_path), TABLES[4].recipes[0], 0.7601)
    ours = {row["name"]: row["ours"] for n in (3, 4) for row in rows_of(f"table{n}", "--workspace", tmp_path)}
    assert {name for name, miou in ours.items() if miou == 0.7601} == {"table3/block7-mg-1-2-1", "table4/os-16"}


def test_table_7_has_one_decimal_and_names_its_recipe(tmp_path: Path) -> None:
    assert ["DeepLabv3", "85.7", "–"] in cells("table7", "--workspace", tmp_path)
    assert "--row deeplabv3" in paper("table7").stdout


def test_the_example_of_a_row_is_in_the_same_workspace(tmp_path: Path) -> None:
    assert "dlv3deploy paper table4 --row os-8-ms-flip\n" in paper("table4").stdout
    place = tmp_path / "my work"
    assert f"dlv3deploy paper table4 --row os-8-ms-flip --workspace '{place}'\n" in paper("table4", "-w", place).stdout


def test_a_row_in_full_names_stages_schedule_and_inference(tmp_path: Path) -> None:
    done = paper("table7", "--row", "table7/deeplabv3", "--workspace", tmp_path)
    assert done.exit_code == 0, done.stderr
    for text in ("stage 3", "batch norm frozen", "0.001", "30000", "513×513", "pottedplant", "85.7 %", "note"):
        assert text in done.stdout


def test_results_of_another_recipe_are_left_out_and_said_once(tmp_path: Path) -> None:
    recipe = TABLES[4].recipes[0]
    place = Workspace(tmp_path)
    record_miou(place, replace(recipe, stages=(replace(recipe.stages[0], steps=20),)), 0.9)
    done = paper("table4", "--json", "--workspace", tmp_path)
    assert done.exit_code == 0
    assert all(row["ours"] is None for row in json.loads(done.stdout)["rows"])
    assert len(done.stderr.splitlines()) == 1
    assert "steps was 20" in done.stderr
    assert "steps was 20" in refused("table4", "--row", "os-8", "--workspace", tmp_path, code=3)


def test_damaged_results_are_one_line(tmp_path: Path) -> None:
    path = results_path(Workspace(tmp_path), TABLES[4].recipes[0])
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert "results.json" in refused("table3", "--workspace", tmp_path)


@pytest.mark.parametrize("what", ["table9", "table0", "table", "figure5", ""])
def test_what_the_paper_does_not_have_is_bad_usage_that_lists_what_it_has(what: str) -> None:
    said = " ".join(refused(what, code=2).replace("│", " ").split())
    listed = ", ".join(["figure4", *(f"table{number}" for number in ROWS), "networks"])
    assert f"{what!r} is nothing that is shown here; there is {listed}" in said
    assert "Value error" not in said


def test_nothing_asked_for_is_bad_usage() -> None:
    assert "Missing argument" in refused(code=2)


def test_a_row_that_is_not_there() -> None:
    assert "did you mean os-8-ms-flip, os-8-ms-flip-coco or os-8-ms?" in refused("table6", "--row", "os-8-flip")
    every_row = ", ".join(recipe.name.split("/")[1] for recipe in TABLES[6].recipes)
    assert f"there is {every_row}" in refused("table6", "--row", "nonsense")


@pytest.mark.parametrize("option", [("--map", 65), ("--kernel", 3), ("--rates", "6,12"), ("--to", "a.png")])
def test_options_of_the_figure_are_not_passed_over_by_a_table(option: tuple[str, object]) -> None:
    assert "is of figure4" in refused("table1", *option)


def test_a_row_of_the_figure() -> None:
    assert "--row: is of the tables" in refused("figure4", "--row", "os-8")


def test_the_tables_need_no_torch() -> None:
    hidden = "import sys; sys.modules['matplotlib'] = sys.modules['torch'] = None; from dlv3deploy.cli import main; main()"
    for number in TABLES:
        program = [sys.executable, "-c", hidden, "paper", f"table{number}"]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
