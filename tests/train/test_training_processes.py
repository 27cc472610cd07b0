"""Training in several processes that torchrun started, here two on one CPU, connected by gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from small_runs import environment, independent_scores, rows_of, shallow_model, small_plan, small_spec, tensors_of

from dlv3deploy.core.errors import UserError
from dlv3deploy.train import devices
from dlv3deploy.train.checkpoint import load_checkpoint, save_checkpoint
from dlv3deploy.train.devices import launched, with_shared_statistics

TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TORCHRUN = (*TWO, "-m", "dlv3deploy")
SHALLOW = str(Path(__file__).with_name("shallow_program.py"))
ONE_SHALLOW, TWO_SHALLOW = (sys.executable, SHALLOW), (*TWO, SHALLOW)
NETWORK = ("--aspp-rates", "1,2,3", "--aspp-channels", "8")
SHORT = (  # of a run that goes on from a checkpoint, and so needs no network
    *("--size", "64x96", "--crop", "48x64", "--steps", "6", "--batch-size", "4"),
    *("--validate-every", "3", "--precision", "32-true", "--workers", "0", "--seed", "3"),
)
SMALL = (*NETWORK, *SHORT)
FROZEN = (*SHORT, "--validate-every", "1", "--freeze-batch-norm", "--optimiser", "sgd", "--learning-rate", "0.001")
ON_CPU = environment(CUDA_VISIBLE_DEVICES="")

pytestmark = pytest.mark.slow


def command(program: tuple[str, ...], data: Path, root: Path, *options: str) -> list[str]:
    return [*program, "train", str(data), "--workspace", str(root), *options]


def trained(program: tuple[str, ...], data: Path, root: Path, *options: str) -> str:
    """What a run says, which has to end well."""
    words = command(program, data, root, *options)
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=ON_CPU)
    assert done.returncode == 0, done.stderr
    return done.stderr


def losses(root: Path) -> list[float]:
    return [float(row["loss"]) for row in rows_of(root / "train")]


@pytest.fixture(scope="module")
def shallow_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that tell places apart."""
    path = tmp_path_factory.mktemp("shallow") / "start.safetensors"
    save_checkpoint(path, shallow_model(), small_spec())
    return path


@pytest.fixture(scope="module")
def alone(few_scenes: Path, shallow_start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, dropout and all, with batch norm frozen."""
    root = tmp_path_factory.mktemp("alone")
    trained(ONE_SHALLOW, few_scenes, root, *FROZEN, "--from", str(shallow_start))
    return root


@pytest.mark.parametrize(
    ("program", "passes"), [(TWO_SHALLOW, 1), (ONE_SHALLOW, 2), (TWO_SHALLOW, 2)], ids=["2×1", "1×2", "2×2"]
)
def test_with_batch_norm_frozen_the_curve_does_not_depend_on_how_the_batch_is_spread(
    alone: Path, few_scenes: Path, shallow_start: Path, tmp_path: Path, program: tuple[str, ...], passes: int
) -> None:
    """One process with the whole batch, or processes × passes that have a part of it each."""
    trained(program, few_scenes, tmp_path, *FROZEN, "--from", str(shallow_start), "--accumulate", str(passes))
    assert len(losses(alone)) == 6  # every step's
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-5)
    assert losses(alone)[-1] < 0.95 * losses(alone)[0]
    one, other = (tensors_of(root / "train" / "last.safetensors") for root in (alone, tmp_path))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_with_batch_norm_training_each_process_has_statistics_of_its_own(
    few_scenes: Path, lively_checkpoint: Path, tmp_path: Path
) -> None:
    """So the curve differs, as the README says; what is reported is what the saved weights score."""
    start = ("--from", str(lively_checkpoint))
    trained((sys.executable, "-m", "dlv3deploy"), few_scenes, tmp_path / "one", *SHORT, *start)
    said = trained(TORCHRUN, few_scenes, tmp_path / "two", *SHORT, *start)
    assert losses(tmp_path / "two") != pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    assert said.count("training on 5 images") == said.count("best validation mIoU") == 1
    model, spec = load_checkpoint(tmp_path / "two" / "model.safetensors")
    expected = independent_scores(model, few_scenes)
    assert spec.training is not None and spec.training.miou == pytest.approx(expected[0], abs=5e-4)  # a pixel or two
    assert f"best validation mIoU {spec.training.miou:.4f}" in said


LONGER = (*SMALL, "--steps", "100", "--validate-every", "10", "--ema", "0.9")


@pytest.fixture(scope="module")
def longer(few_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing broke off."""
    root = tmp_path_factory.mktemp("longer")
    trained(TWO_SHALLOW, few_scenes, root, *LONGER)
    return root


def started(data: Path, root: Path) -> subprocess.Popen[str]:
    """Two processes that have validated once."""
    words = command(TWO_SHALLOW, data, root, *LONGER)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True, env=ON_CPU)
    for _ in range(1200):
        if (root / "train" / "state.pt").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    return process


def assert_goes_on_like(unbroken: Path, data: Path, root: Path) -> None:
    assert not (root / "model.safetensors").exists()
    trained(TWO_SHALLOW, data, root, *LONGER, "--resume")
    assert rows_of(root / "train") == rows_of(unbroken / "train")
    one, other = (tensors_of(folder / "model.safetensors") for folder in (unbroken, root))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_killed_run_of_two_processes_goes_on_as_one_that_was_not(longer: Path, few_scenes: Path, tmp_path: Path) -> None:
    process = started(few_scenes, root := tmp_path / "killed")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    for child in _processes_of(str(root)):  # torchrun starts its processes in sessions of their own
        os.kill(child, signal.SIGKILL)
    process.communicate()
    assert_goes_on_like(longer, few_scenes, root)


@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_in_one_process_stops_both_behind_the_same_step(
    longer: Path, few_scenes: Path, tmp_path: Path, rank: int
) -> None:
    process = started(few_scenes, root := tmp_path / "stopped")
    (child,) = (p for p in _processes_of(str(root)) if f"\0RANK={rank}\0".encode() in Path(f"/proc/{p}/environ").read_bytes())
    os.kill(child, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    step = torch.load(root / "train" / "state.pt")["progress"]["step"]
    assert said.count(f"stopped at step {step} of 100; go on") == 1
    assert_goes_on_like(longer, few_scenes, root)


def _processes_of(word: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_an_unknown_label_ends_every_process_and_names_the_file(few_scenes: Path, tmp_path: Path) -> None:
    words = command(TORCHRUN, few_scenes, tmp_path, *SMALL, "--class-names", "a,b")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=ON_CPU)
    assert done.returncode != 0
    assert "labels/" in done.stderr and "ids are 0 to 1, or 255 for ignored" in done.stderr


def test_synchronised_batch_norm_is_refused_where_torch_has_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    fabric = launched(small_plan(Path("data")))
    with pytest.raises(UserError, match="--sync-batch-norm: needs GPUs"):
        with_shared_statistics(torch.nn.BatchNorm2d(3), fabric)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {"accelerator": "auto", "devices": "auto"}),
        (
            {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"},
            {"accelerator": "auto", "devices": 4, "num_nodes": 2, "strategy": "ddp"},
        ),
    ],
)
def test_torchrun_says_how_many_processes_there_are(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, object]
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert devices._placement(one_device=False) == expected


@pytest.mark.parametrize(("gpus", "says"), [(1, "there is 1; use torchrun --nproc-per-node 1,"), (3, "there are 3; use")])
def test_more_processes_than_gpus_are_refused_with_a_number_that_works(
    monkeypatch: pytest.MonkeyPatch, gpus: int, says: str
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UserError, match=f"4 processes on this machine: each needs a GPU of its own, and {says}"):
        launched(small_plan(Path("data")))


@pytest.mark.parametrize("error", [MisconfigurationException("no such device"), torch.distributed.DistNetworkError("refused")])
def test_processes_that_cannot_be_connected_are_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing(_fabric: Fabric) -> None:
        raise error

    monkeypatch.setattr(Fabric, "launch", failing)
    with pytest.raises(UserError, match=rf"cannot be started or connected \({error}\); give torchrun"):
        launched(small_plan(Path("data")))
