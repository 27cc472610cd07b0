"""Checkpoints: what is saved comes back, and what is no whole checkpoint of this program is refused in one line."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_runs import SMALL, lively_model, small_spec, tensors_of

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import SPEC_KEY, Architecture, InputSpec, ModelSpec, OutputSpec, TrainingFacts
from dlv3deploy.train import checkpoint as checkpoint_module
from dlv3deploy.train.checkpoint import load_checkpoint, save_checkpoint
from dlv3deploy.train.torch_engine import TorchEngine


@pytest.mark.parametrize("auxiliary", [False, True])
def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path, auxiliary: bool) -> None:
    architecture = replace(SMALL, auxiliary=auxiliary)
    spec = replace(small_spec(architecture), training=TrainingFacts("/data", 7, 0.5, 0.75), parents={"backbone": "0123"})
    model = lively_model(architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # typed for tensors only
    save_checkpoint(tmp_path / "model.safetensors", model, spec)
    loaded, found = load_checkpoint(tmp_path / "model.safetensors")
    assert found == spec
    assert not loaded.training
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_checkpoint(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("kept", [1, 7, 8, 100, 5_000, 60_000, -1])
def test_a_checkpoint_cut_short_is_refused(lively_checkpoint: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(lively_checkpoint.read_bytes()[:kept])
    assert "is no whole safetensors file" in refusal(path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert "does not exist" in refusal(path)
    path.write_bytes(b"")
    assert "is empty" in refusal(path)
    path.write_bytes(b"PNG, perhaps" * 100)
    assert "is no whole safetensors file" in refusal(path)
    assert "is a folder" in refusal(tmp_path)


def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    assert "is a checkpoint of another program" in refusal(path)


def described_as(source: Path, target: Path, spec: ModelSpec) -> Path:
    save_file(tensors_of(source), target, metadata={SPEC_KEY: spec.to_text()})
    return target


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture("resnet18", 16, (1, 2, 3), 8),
        replace(SMALL, aspp_channels=16),
        replace(SMALL, aspp_rates=(1, 2)),
        replace(SMALL, auxiliary=True),
    ],
)
def test_weights_that_do_not_fit_their_description_are_refused(
    lively_checkpoint: Path, tmp_path: Path, architecture: Architecture
) -> None:
    path = described_as(lively_checkpoint, tmp_path / "model.safetensors", small_spec(architecture))
    assert "does not fit its own description" in refusal(path)


def test_a_description_without_an_architecture_is_refused(lively_checkpoint: Path, tmp_path: Path) -> None:
    spec = replace(small_spec(), architecture=None)
    path = described_as(lively_checkpoint, tmp_path / "model.safetensors", spec)
    assert "does not say which architecture" in refusal(path)


def test_an_architecture_this_version_cannot_build_is_refused(lively_checkpoint: Path, tmp_path: Path) -> None:
    for number, architecture in enumerate((replace(SMALL, backbone="xception"), replace(SMALL, output_stride=4))):
        path = described_as(lively_checkpoint, tmp_path / f"{number}.safetensors", small_spec(architecture))
        with pytest.raises(UserError, match="xception|output stride 4"):
            load_checkpoint(path)


def test_a_save_that_fails_leaves_the_old_checkpoint_and_nothing_else(
    lively_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(lively_checkpoint, path)
    before = path.read_bytes()

    def full_disk(weights: object, file: str, metadata: object) -> None:
        Path(file).write_bytes(before[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(UserError, match="the file that was there is unchanged"):
        checkpoint_module.save_checkpoint(path, lively_model(seed=1), small_spec())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_torch_engine_computes_the_models_scores_at_any_size(lively_checkpoint: Path) -> None:
    model, spec = load_checkpoint(lively_checkpoint)
    with TorchEngine.open(lively_checkpoint) as engine:
        assert engine.spec == spec and engine.name.startswith("PyTorch ")
        for n, height, width in ((1, 64, 96), (3, 65, 33)):
            batch = np.random.default_rng(0).standard_normal((n, 3, height, width), np.float32)
            scores = engine.infer(batch)
            with torch.no_grad():
                expected = model(torch.from_numpy(batch)).numpy()
            np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
            assert scores.dtype == np.float32 and scores.flags.writeable


def test_the_torch_engine_keeps_no_hold_of_what_it_returned(lively_checkpoint: Path) -> None:
    batch = np.ones((1, 3, 32, 32), np.float32)
    with TorchEngine.open(lively_checkpoint) as engine:
        first = engine.infer(batch)
        kept = first.copy()
        engine.infer(batch + 1)
        np.testing.assert_array_equal(first, kept)
        first[...] = 0
        np.testing.assert_array_equal(engine.infer(batch), kept)


@pytest.mark.parametrize("batch", [np.zeros((1, 3, 8, 8)), np.zeros((3, 8, 8), np.float32), np.zeros((1, 1, 8, 8), np.float32)])
def test_the_torch_engine_refuses_other_batches(lively_checkpoint: Path, batch: np.ndarray) -> None:
    with TorchEngine.open(lively_checkpoint) as engine, pytest.raises(ValueError, match="takes float32"):
        engine.infer(batch)


def test_an_engine_gives_scores_whatever_the_spec_says(lively_checkpoint: Path) -> None:
    model, spec = load_checkpoint(lively_checkpoint)
    engine = TorchEngine(model, replace(spec, output=OutputSpec("mask"), input=InputSpec(64, 96)))
    assert engine.spec.output == OutputSpec("scores")
