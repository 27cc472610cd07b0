"""`paper tableN --smoke` and `--run`: every row works, and a row that was run has its figure beside the paper's."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import command_line
import pytest
import tiny_datasets as tiny
from typer.testing import CliRunner, Result

pytest.importorskip("torch")

import torch

from dlv3deploy.cli import app
from dlv3deploy.commands import paper_runs, paper_smoke
from dlv3deploy.core.classes import VOC
from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.paper.recipe import Stage
from dlv3deploy.core.paper.tables import TABLES
from dlv3deploy.core.workspace import Workspace
from dlv3deploy.train.network.deeplabv3 import build_backbone
from dlv3deploy.train.plan import TrainingPlan


def paper(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["paper", *(str(a) for a in arguments)], env={"COLUMNS": "120"})


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_every_row_of_a_table_runs_from_its_first_stage_to_its_inference(number: int) -> None:
    threads = torch.get_num_threads()
    done = paper(f"table{number}", "--smoke", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert [row["name"] for row in rows] == [recipe.name for recipe in TABLES[number].recipes]
    for row, recipe in zip(rows, TABLES[number].recipes, strict=True):
        assert row["error"] is None
        side = math.ceil(513 / recipe.inference.output_stride)
        assert row["scores"] == [21, side, side]
        assert len(row["losses"]) == len(recipe.stages) and all(0 < loss < 10 for loss in row["losses"])
    assert torch.get_num_threads() == threads


def test_the_recipe_of_the_test_set_runs_through_its_three_stages() -> None:
    """COCO, trainaug, then trainval at output stride 8 with batch norm frozen and hard images repeated."""
    done = paper("table7", "--smoke", "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["rows"]
    assert len(row["losses"]) == 3 and row["scores"] == [21, 65, 65]


def test_a_row_that_does_not_work_is_named_and_exit_3(monkeypatch: pytest.MonkeyPatch) -> None:
    real = paper_smoke.smoke

    def fails(recipe: Any, folder: Path) -> list[float]:
        if recipe.name == "table4/os-8":
            raise CheckFailed("the loss is nan")
        return real(recipe, folder)

    monkeypatch.setattr(paper_smoke, "smoke", fails)
    done = paper("table4", "--smoke")
    assert done.exit_code == 3
    assert done.stdout.count("works") == 3 and "the loss is nan" in done.stdout


def test_a_miniature_keeps_what_makes_the_recipe(scenes: Path) -> None:
    stage = TABLES[7].recipes[0].stages[-1]
    plan, own = paper_smoke.small_plan(stage, scenes), stage.architecture
    assert plan.architecture == replace(own, width=0.125, aspp_channels=32)
    assert (plan.frozen_batch_norm, plan.learning_rate, plan.repeat_classes) == (True, stage.learning_rate, ("person",))
    assert (plan.optimiser, plan.poly_power, plan.scale, plan.flip) == ("sgd", 0.9, (0.5, 2.0), True)


def test_a_stage_is_trained_by_the_papers_protocol() -> None:
    """Section 4.1."""
    sources = paper_runs.Sources(Path("voc"), Path("coco"))
    first, _, last = TABLES[7].recipes[0].stages
    coco, trainval = (paper_runs.plan_for(stage, sources, paper_runs.Machine(accumulate=4)) for stage in (first, last))
    assert (coco.data, coco.classes, coco.split) == (Path("coco"), VOC, "train")
    assert (coco.crop, coco.batch_size, coco.accumulate, coco.steps) == ((513, 513), 16, 4, 30_000)
    assert (coco.learning_rate, coco.poly_power, coco.batch_norm_momentum) == (0.007, 0.9, 3e-4)
    assert (trainval.data, trainval.split, trainval.learning_rate) == (Path("voc"), "trainval", 0.001)
    assert trainval.architecture.output_stride == 8 and trainval.architecture.aspp_rates == (12, 24, 36)
    assert trainval.frozen_batch_norm
    assert trainval.repeat_classes == ("bicycle", "chair", "diningtable", "pottedplant", "sofa")


@pytest.fixture
def voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VOC with SBD in miniature; stages are trained on it for two steps, an eighth as wide, from weights on this disk."""
    pytest.importorskip("scipy")
    tiny.voc(tmp_path / "voc")
    tiny.sbd(tmp_path / "voc", train=("d",), val=("e",))
    real = paper_runs.plan_for

    def short(stage: Stage, sources: paper_runs.Sources, machine: paper_runs.Machine) -> TrainingPlan:
        thin = replace(stage.architecture, width=0.125, aspp_channels=32)
        return real(replace(stage, architecture=thin, crop=65, steps=2, batch_size=2), sources, replace(machine, workers=0))

    weights = tmp_path / "backbone.pth"
    with torch.random.fork_rng():
        torch.save(build_backbone(replace(TABLES[6].recipes[0].stages[0].architecture, width=0.125)).state_dict(), weights)
    monkeypatch.setattr(paper_runs, "plan_for", short)
    monkeypatch.setattr("dlv3deploy.train.weights.download.weights_file", lambda name: weights)
    return tmp_path / "voc"


def test_the_masks_of_the_test_set_are_made_by_the_recipes_inference_in_its_workspace() -> None:
    inference, place = TABLES[7].recipes[0].inference, Workspace(Path("my work"))
    command = shlex.split(paper_runs.masks_command(Path("last.safetensors"), inference, place))
    assert command[:3] == ["dlv3deploy", "run", "last.safetensors"] and command[-2:] == ["--workspace", "my work"]
    given = dict(pairwise(command))
    assert given["--scales"] == "0.5,0.75,1,1.25,1.5,1.75" and "--flip" in command
    assert {word for word in command if word.startswith("--")} < command_line.options("run")


def test_a_row_that_was_run_has_its_figure_beside_the_papers(voc: Path, tmp_path: Path) -> None:
    place = tmp_path / "work"
    done = paper("table6", "--row", "os-16", "--run", "--data", voc, "--workspace", place, "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["rows"]
    assert row["published"] == 0.7721 and 0 <= row["ours"] <= 1
    assert "table6/os-16: mIoU" in done.stderr and "the paper's is 0.7721" in done.stderr
    trained = place / "paper" / row["training"] / "train" / "last.safetensors"
    written = trained.stat().st_mtime_ns

    other = paper("table6", "--row", "os-8-ms-flip", "--run", "--data", voc, "--workspace", place, "--json")
    assert other.exit_code == 0, other.output
    assert trained.stat().st_mtime_ns == written  # the same weights, another inference
    again = paper("table6", "--row", "os-16", "--run", "--data", voc, "--workspace", place)
    assert again.exit_code == 0 and "measured before" in again.stderr
    assert "table5" in paper("table5", "--workspace", place).stdout
    same = paper("table5", "--row", "mg-1-2-4-aspp-6-12-18-pooling", "--workspace", place, "--json")
    assert json.loads(same.stdout)["rows"][0]["ours"] == row["ours"]  # Table 5's last row is Table 6's first


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("table1 --run --smoke", "exclude each other"),
        ("table6 --row os-16 --run --data nowhere", "nowhere: is no folder"),
        ("networks --run", "--run: is of the tables"),
        ("figure4 --smoke", "--smoke: is of the tables"),
        ("table1 --markdown", "--markdown: is of networks"),
        ("networks --markdown --json", "--json and --markdown: exclude each other"),
        ("table1 --data voc", "--data: is of a training and its evaluation; add --run"),
        ("table1 --smoke --workers 4 --compile", "--compile, --workers: is of"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_exit_1(tmp_path: Path, options: str, says: str) -> None:
    done = paper(*options.split(), "--workspace", tmp_path)
    assert done.exit_code == 1 and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_data_sets_that_are_not_found_name_the_option_and_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DLV3DEPLOY_DATA", raising=False)
    said = paper("table6", "--row", "os-16", "--run").stderr
    assert "voc: is no folder, and neither is data/voc; give the folder of PASCAL VOC 2012 with SBD with --data" in said
    assert "$DLV3DEPLOY_DATA name the one that holds voc/" in said
    tiny.voc(tmp_path / "voc")
    tiny.sbd(tmp_path / "voc", train=("d",), val=("e",))
    said = paper("table6", "--row", "os-8-ms-flip-coco", "--run").stderr
    assert "COCO 2017 with --coco" in said and "holds coco/" in said


def test_voc_without_sbd_is_no_trainaug(tmp_path: Path) -> None:
    tiny.voc(tmp_path)
    done = paper("table6", "--row", "os-16", "--run", "--data", tmp_path, "--workspace", tmp_path / "work")
    assert done.exit_code == 1
    assert "the paper trains on trainaug" in done.stderr and "2 images" in done.stderr


def test_networks_are_counted_as_they_were_published() -> None:
    """torchvision's to the last digit that it prints."""
    done = paper("networks", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["networks"]
    assert len(rows) == 22
    for row in rows:
        for figure, digits in (("parameters", 1e3), ("macs", 1e6)):
            published, ours = row["published"][figure], row["ours"][figure]
            if published is not None and row["source"] == "torchvision":
                assert abs(published - ours) <= 0.5 * digits if figure == "macs" else published == ours, row
            elif published is not None:
                assert ours == pytest.approx(published, rel=0.05), row


def test_the_page_of_networks_is_what_the_command_prints() -> None:
    page = Path(__file__).parents[2] / "docs" / "networks.md"
    done = paper("networks", "--markdown")
    assert done.exit_code == 0 and done.stdout == page.read_text(encoding="utf-8")
