"""The CamVid table: how rows are written, which trainings are run, and that no path gets in. Nothing is trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import camvid
import numpy as np
import pytest
import tiny_datasets as tiny
from machine import Machine
from recipes import INFERENCES, RECIPES, Command, Places, Stage
from safetensors.numpy import save_file
from standing import require_same
from typer.testing import CliRunner

from dlv3deploy.cli import app
from dlv3deploy.core.classes import CAMVID
from dlv3deploy.core.spec import SPEC_KEY, Architecture, InputSpec, ModelSpec, OutputSpec

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from dlv3deploy.train.loop import TrainingResult  # noqa: E402 (they need torch)
from dlv3deploy.train.plan import TrainingPlan  # noqa: E402 (they need torch)

MACHINE = Machine("Some CPU @ 2 GHz", 2, None, "2.6.0", "3.12.1", "0.1.0")
SCORES = {"miou": 0.51234, "pixel_accuracy": 0.87654, "images": 101, "engine": "PyTorch, cpu"}
MOBILENET = RECIPES["mobilenet_v2"]
SAVED = {
    **{"mean": "(127.5, 127.5, 127.5)", "std": "(127.5, 127.5, 127.5)", "size": "(353, 481)", "crop": "(257, 321)"},
    **{
        "scale": "(0.5, 1.25)",
        "batch-size": "6",
        "steps": "1800",
        "ema": "0.99",
        "dice": "1.0",
        "backbone": "mobilenet_v2",
    },
}


def table_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]


def leave_training(workspace: Path, settled: int, plan: dict[str, str] = SAVED) -> None:
    (workspace / "train").mkdir(parents=True, exist_ok=True)
    learnt: dict[str, object] = {"rows": [], "model": {}, "optimiser": {}}
    state = {"plan": plan, "steps": 1800, "progress": {"settled": settled}, **learnt}
    torch.save(state, workspace / "train" / "state.pt")
    (workspace / "train" / "metrics.csv").write_text("step,loss,seconds\n10,2.0,9.0\n1800,0.3,1374.0\n", encoding="utf-8")
    (workspace / "model.safetensors").write_bytes(b"weights")


class Program:
    """Stands for `dlv3deploy`: notes what it was called with, and trains at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, places: Places, evaluate: tuple[int, str, str]) -> None:
        self.places, self.evaluate, self.calls = places, evaluate, list[str]()
        monkeypatch.setattr(camvid, "run_to_its_end", self.train)
        monkeypatch.setattr(camvid, "output_of", self.answer)

    def train(self, command: Sequence[str]) -> int:
        self.calls.append(" ".join(command[3:]))
        leave_training(self.places.workspace, 1800)
        return 0

    def answer(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.calls.append(" ".join(command[3:]))
        return self.evaluate


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "data", tmp_path / "space", {"mobilenet_v2": str(tmp_path / "mnv2.safetensors")})


def test_a_row_has_four_decimals_the_minutes_and_the_command_with_words_for_paths() -> None:
    command = MOBILENET.evaluation(INFERENCES[3])
    row = camvid.Row("MobileNetV2", INFERENCES[3].name, command, SCORES, 22.94, 301.26)
    text = camvid.document([row], [MOBILENET], MACHINE, date(2026, 1, 31))
    assert table_of(text)[1] == [
        *("MobileNetV2", "output stride 8, multi-scale, flip", "0.5123", "0.8765", "22.9", "301.3"),
        "`dlv3deploy evaluate WORKSPACE/model.safetensors --data CAMVID --split val --output-stride 8 --scales paper --flip`",
    ]
    assert "- CPU: Some CPU @ 2 GHz, 2 cores\n- GPU: none\n- dlv3deploy 0.1.0, torch 2.6.0, Python 3.12.1\n" in text
    assert "- date: 2026-01-31\n- judged on: 101 validation images, PyTorch, cpu\n" in text
    assert "    dlv3deploy train CAMVID --workspace WORKSPACE --classes camvid --backbone-weights MOBILENET_V2_WEIGHTS" in text


@pytest.mark.parametrize(("settled", "trains"), [(1800, None), (600, "--resume"), (None, "")])
def test_a_finished_training_is_kept_a_stopped_one_goes_on_and_none_is_begun(
    monkeypatch: pytest.MonkeyPatch, places: Places, settled: int | None, trains: str | None
) -> None:
    if settled is not None:
        leave_training(places.workspace, settled)
    program = Program(monkeypatch, places, (0, json.dumps(SCORES), ""))
    rows = camvid.measure(MOBILENET, places, has_gpu=False)
    assert [row.training_minutes for row in rows] == [22.9] * 4
    assert [call.partition(" ")[0] for call in program.calls] == ["train"] * (trains is not None) + ["evaluate"] * 4
    if trains is not None:
        assert program.calls[0].startswith(f"train {places.data} --workspace {places.workspace} --classes camvid")
        assert program.calls[0].endswith("--resume") == (trains == "--resume")


def test_a_workspace_with_another_training_is_left_alone_and_named(monkeypatch: pytest.MonkeyPatch, places: Places) -> None:
    leave_training(places.workspace, 1800, SAVED | {"crop": "(128, 128)"})
    program = Program(monkeypatch, places, (0, json.dumps(SCORES), ""))
    rows = camvid.measure(MOBILENET, places, has_gpu=False)
    assert program.calls == []
    assert all(row.failed and "holds a training with crop (128, 128), not (257, 321)" in row.reason for row in rows)


def test_what_fails_says_why_and_what_needs_a_gpu_says_so(
    monkeypatch: pytest.MonkeyPatch, places: Places, tmp_path: Path
) -> None:
    leave_training(places.workspace, 1800)
    monkeypatch.setattr(camvid, "_gpu", lambda: None)
    Program(monkeypatch, places, (1, "", f"error: {places.workspace}/model.safetensors: is damaged; train again\n"))
    page = tmp_path / "camvid.md"
    arguments: Command = ("--data", str(places.data), "--workspace", str(places.workspace), "--to", str(page))
    monkeypatch.setattr(sys, "argv", ["camvid.py", *arguments, "--backbones", "mobilenet_v2,resnet50"])
    assert camvid.main() == 1
    text = page.read_text(encoding="utf-8")
    results = [row[2] for row in table_of(text)[1:]]
    damaged = "failed: exit code 1, error: WORKSPACE/model.safetensors: is damaged; train again"
    assert results == [damaged] * 4 + ["not run: needs a GPU"] * 4
    assert str(tmp_path) not in text
    assert "dlv3deploy train CAMVID --workspace WORKSPACE/resnet50-os8 --classes camvid --size 353x481" in text


@pytest.mark.parametrize("stage", [s for r in RECIPES.values() for s in r.stages], ids=lambda stage: stage.folder)
def test_a_recipe_is_understood_and_a_run_records_it_under_the_names_that_are_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: Stage
) -> None:
    plans: list[TrainingPlan] = []

    def note(plan: TrainingPlan, *_others: object) -> TrainingResult:
        plans.append(plan)
        return TrainingResult(tmp_path, 0.0, 0.0, 0, 0.0)

    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"any")
    for name in "ab":
        tiny.picture(tmp_path / "data" / "images" / f"{name}.png")
        tiny.ids(tmp_path / "data" / "labels" / f"{name}.png", 0, 1)
    for backbone in ("resnet50", "resnet101"):
        folder = tmp_path / "space" / f"{backbone}-os16"
        folder.mkdir(parents=True)
        network = Architecture(backbone, 16, multi_grid=(1, 2, 4), final_convolution=False)
        spec = ModelSpec(CAMVID, InputSpec(353, 481), OutputSpec("scores"), network)
        save_file({"weight": np.zeros(1)}, folder / "model.safetensors", metadata={SPEC_KEY: spec.to_text()})
    places = Places(tmp_path / "data", tmp_path / "space", dict.fromkeys(RECIPES, str(weights)))
    monkeypatch.setattr("dlv3deploy.train.loop.train", note)
    done = CliRunner().invoke(app, places.fill(stage.command))
    assert done.exit_code == 0, done.output
    fingerprint = plans[0].fingerprint()
    require_same(stage.options, fingerprint)
    assert fingerprint["output-stride"] == str(stage.output_stride)
