"""A run that is killed or cut off while writing, and then resumed, ends exactly as one that was not; others are refused."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_runs import Killed, assert_ends_like, raising_at, resume, start
from lightning_fabric.plugins import Precision
from small_runs import SMALL, UnbrokenRun, environment, shallow_backbone, small_plan, tensors_of

from dlv3deploy.core.classes import anonymous_classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.train import loop
from dlv3deploy.train.beginning import check_folder
from dlv3deploy.train.loss_choice import LossChoice
from dlv3deploy.train.network.deeplabv3 import DeepLabV3
from dlv3deploy.train.run_state import RunFolder

HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("shallow_network")


WRITES = [
    *(("save_checkpoint", n) for n in (2, 3)),
    *(("write_rows", n) for n in (1, 2)),
    *(("save_state", n) for n in (1, 2)),
    ("publish", 0),
]


@pytest.mark.parametrize(("write", "number"), WRITES)
def test_killed_at_any_write(
    unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str, number: int
) -> None:
    owner: Any = RunFolder if hasattr(RunFolder, write) else loop
    real, calls = getattr(owner, write), iter(range(100))

    def killed(*arguments: Any) -> None:
        if next(calls) == number:
            raise Killed
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, write, killed)
        with pytest.raises(Killed):
            start(few_scenes, tmp_path)
    assert_ends_like(unbroken, tmp_path, resume(few_scenes, tmp_path))


def test_killed_between_validations_a_run_goes_on_from_the_last_one(
    unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(HERE / "train_until_killed.py"), str(few_scenes), str(tmp_path), "6"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, env=environment())
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    state = torch.load(tmp_path / "train" / "state.pt")
    assert state["progress"]["step"] == 4
    assert_ends_like(unbroken, tmp_path, resume(few_scenes, tmp_path))


def copy_of(run: UnbrokenRun, root: Path) -> Path:
    shutil.copytree(run.folder, root / "train")
    shutil.copy(run.checkpoint, root / "model.safetensors")
    return root / "train"


def test_resuming_a_finished_run_changes_nothing(unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path) -> None:
    copy_of(unbroken, tmp_path)
    previous = tmp_path / "model.previous.safetensors"
    previous.write_bytes(b"the model of last week")
    assert_ends_like(unbroken, tmp_path, resume(few_scenes, tmp_path))
    assert previous.read_bytes() == b"the model of last week"


def test_the_learning_rate_goes_on_falling_after_a_resume(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    real, interruptions = loop.update, iter([KeyboardInterrupt])

    def noted(run: loop.Run, step: int, *rest: Any) -> float:
        if step == 5 and (interruption := next(interruptions, None)):
            raise interruption
        loss = real(run, step, *rest)
        used.append(run.optimiser.optimizer.param_groups[0]["lr"])
        return loss

    monkeypatch.setattr(loop, "update", noted)
    with pytest.raises(KeyboardInterrupt):
        start(few_scenes, tmp_path)
    resume(few_scenes, tmp_path)
    plan = small_plan(few_scenes)
    assert used == [plan.rate_at(step) for step in range(12)]


def test_float16s_loss_scale_goes_on_where_it_was(few_scenes: Path, unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where float32's empty state stands for it."""
    restored: list[dict[str, float]] = []
    monkeypatch.setattr(Precision, "state_dict", lambda self: {"scale": 1024.0})
    monkeypatch.setattr(Precision, "load_state_dict", lambda self, state: restored.append(state))
    resume(few_scenes, unfinished.parent)  # from a state without one
    assert restored == []
    resume(few_scenes, unfinished.parent)
    assert restored == [{"scale": 1024.0}]


@pytest.mark.gpu
def test_a_run_in_float16_saves_its_loss_scale_and_is_resumed_with_it(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", raising_at(5, KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            start(few_scenes, tmp_path, precision="16-mixed")
    saved = torch.load(tmp_path / "train" / "state.pt")["scaler"]
    assert saved["scale"] > 1

    def compare(run: loop.Run, *rest: Any) -> float:
        assert run.fabric.strategy.precision.state_dict() == saved
        raise Killed

    monkeypatch.setattr(loop, "update", compare)
    with pytest.raises(Killed):
        resume(few_scenes, tmp_path, precision="16-mixed")


def test_backbone_weights_are_not_needed_any_more(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    weights = tmp_path / "backbone.pth"
    torch.save(DeepLabV3(SMALL, 3).backbone.state_dict(), weights)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", raising_at(2, KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            start(few_scenes, tmp_path, backbone_weights=weights)
    assert f", from random weights and the backbone's in {weights}\n" in capsys.readouterr().err
    saved = tensors_of(tmp_path / "train" / "last.safetensors")
    weights.unlink()

    def compare(run: loop.Run, *rest: Any) -> float:
        assert all(torch.equal(tensor, saved[name]) for name, tensor in run.model.state_dict().items())
        raise Killed

    monkeypatch.setattr(loop, "update", compare)
    with pytest.raises(Killed):
        resume(few_scenes, tmp_path, backbone_weights=weights)


# What is refused


@pytest.fixture(scope="module")
def stopped_at_5(one_thread: None, few_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stopped")
    with shallow_backbone() as patch:
        patch.setattr(loop, "update", raising_at(5, KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            start(few_scenes, root)
    return root


@pytest.fixture
def unfinished(stopped_at_5: Path, tmp_path: Path) -> Path:
    """The folder of a run that stopped at step 5."""
    shutil.copytree(stopped_at_5 / "train", tmp_path / "train")
    return tmp_path / "train"


def test_an_unfinished_run_is_overwritten_only_on_request(unfinished: Path) -> None:
    with pytest.raises(UserError, match="stopped at step 5 of 12; use --resume to go on, --restart to begin again"):
        check_folder(unfinished, resume=False, restart=False)
    check_folder(unfinished, resume=True, restart=False)
    check_folder(unfinished, resume=False, restart=True)
    with pytest.raises(UserError, match="exclude each other"):
        check_folder(unfinished, resume=True, restart=True)


def test_a_finished_run_and_an_empty_folder_are_free(unbroken: UnbrokenRun, tmp_path: Path) -> None:
    check_folder(unbroken.folder, resume=False, restart=False)
    check_folder(tmp_path / "new", resume=False, restart=False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 4}, "--batch-size 4: the saved run has --batch-size 2; give the same"),  # the rate follows it
        ({"learning_rate": 0.5}, "--learning-rate 0.5: the saved run has --learning-rate 0.000"),
        ({"seed": 9}, "--seed 9: the saved run has --seed 3"),
        ({"crop": (64, 64)}, "--crop 64x64: the saved run has --crop 48x64"),
        ({"scale": (1.0, 1.5)}, "--scale 1.0,1.5: the saved run has --scale 0.5,2.0"),
        ({"architecture": replace(SMALL, aspp_channels=16)}, "--aspp-channels 16: the saved run has --aspp-channels 8"),
        ({"architecture": replace(SMALL, aspp_rates=())}, "--aspp-rates none: the saved run has --aspp-rates 1,2,3"),
        ({"architecture": replace(SMALL, aspp_rates=(6,))}, "--aspp-rates 6: the saved run has --aspp-rates 1,2,3"),
        (
            {"architecture": replace(SMALL, early_padding=True)},
            "early padding True: the saved run has early padding False; go on",
        ),
        ({"ema_decay": 0.9}, "--ema 0.9: the saved run has no --ema"),
        ({"flip": False}, "no --flip: the saved run has --flip"),
        ({"frozen_batch_norm": True}, "--freeze-batch-norm: the saved run has no --freeze-batch-norm"),
        ({"classes": anonymous_classes(8)}, "classes class 0, class 1, class 2, …: the saved run has classes sky, "),
        ({"steps": 20, "seed": 9}, "--steps 20, --seed 9: the saved run has --steps 12, --seed 3; give"),
        (
            {"steps": 20, "flip": False, "dropout": 0.1, "accumulate": 2, "seed": 9, "batch_size": 4},
            "--steps 20, --batch-size 4, --accumulate 2, no --flip and 2 more: "
            "the saved run has --steps 12, --batch-size 2, --accumulate 1, --flip and 2 more; give",
        ),
    ],
)
def test_other_options_are_refused_by_name(few_scenes: Path, unfinished: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=f"^--resume with {re.escape(says)}"):
        RunFolder(unfinished).load_state(small_plan(few_scenes, **changes))
    before = (unfinished / "state.pt").read_bytes()
    with pytest.raises(UserError, match=re.escape(says)):
        resume(few_scenes, unfinished.parent, **changes)
    assert (unfinished / "state.pt").read_bytes() == before


def test_a_state_of_an_earlier_version_is_read_and_what_it_did_not_record_must_fit(few_scenes: Path, unfinished: Path) -> None:
    """It knew no average, no width, and options by other names."""
    state = torch.load(unfinished / "state.pt")
    del state["average"], state["plan"]["aspp-channels"]
    state["plan"]["hard-below"] = state["plan"].pop("ohem")
    torch.save(state, unfinished / "state.pt")
    with pytest.raises(UserError, match="--resume with --ohem 0.7: the saved run has no --ohem"):
        resume(few_scenes, unfinished.parent, loss=LossChoice(hard_below=0.7))
    with pytest.raises(UserError, match=r"state.pt: does not fit the network that is asked for \(.*; give the same options"):
        resume(few_scenes, unfinished.parent, architecture=replace(SMALL, aspp_channels=16))
    assert resume(few_scenes, unfinished.parent).steps == 12


def test_there_must_be_a_run_to_resume(few_scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run to resume"):
        resume(few_scenes, tmp_path)
    with pytest.raises(UserError, match="holds no run to resume"):
        check_folder(tmp_path / "train", resume=True, restart=False)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_damaged_state_is_refused_and_not_overwritten_unasked(few_scenes: Path, unfinished: Path, share: float) -> None:
    state = unfinished / "state.pt"
    state.write_bytes(state.read_bytes()[: int(share * state.stat().st_size)])
    with pytest.raises(UserError, match="state.pt: is damaged; start anew with --restart"):
        RunFolder(unfinished).load_state(small_plan(few_scenes))
    with pytest.raises(UserError, match="state.pt: is damaged; start anew with --restart"):
        check_folder(unfinished, resume=False, restart=False)


def test_a_state_whose_best_checkpoint_is_gone_is_refused(few_scenes: Path, unfinished: Path) -> None:
    (unfinished / "best.safetensors").unlink()
    with pytest.raises(UserError, match="best.safetensors: is missing"):
        RunFolder(unfinished).load_state(small_plan(few_scenes))


def test_a_restarted_run_that_dies_early_is_not_resumed_as_the_old_one(
    few_scenes: Path, unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "update", raising_at(1, Killed))
    with pytest.raises(Killed):
        start(few_scenes, unfinished.parent)
    with pytest.raises(UserError, match="holds no run to resume"):
        resume(few_scenes, unfinished.parent)
