"""Training: it learns, it repeats itself bit for bit, and it leaves behind what it says it does."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from small_runs import SIZE, SMALL, UnbrokenRun, independent_scores, lively_model, rows_of, small_plan, small_spec, tensors_of

from dlv3deploy.core.datasets import open_dataset
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.images import read_label
from dlv3deploy.core.metrics import SegmentationScores
from dlv3deploy.train import loop, preparation
from dlv3deploy.train.checkpoint import load_checkpoint
from dlv3deploy.train.curve import draw_curve
from dlv3deploy.train.loop import train, validate
from dlv3deploy.train.loss import SegmentationLoss
from dlv3deploy.train.loss_choice import LossChoice
from dlv3deploy.train.network.deeplabv3 import DeepLabV3
from dlv3deploy.train.run_state import Row

pytestmark = pytest.mark.usefixtures("shallow_network")


def test_a_dozen_steps_lower_the_loss(few_scenes: Path, tmp_path: Path) -> None:
    plan = small_plan(few_scenes, crop=SIZE, scale=(1.0, 1.0), flip=False, learning_rate=4e-2)
    train(plan, tmp_path / "model.safetensors", tmp_path / "train")
    losses = [float(row["loss"]) for row in rows_of(tmp_path / "train")]
    assert losses[-1] < 0.75 * losses[0]


def test_the_same_seed_gives_the_same_weights_bit_for_bit_with_any_number_of_workers(
    unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path
) -> None:
    train(small_plan(few_scenes, workers=2), tmp_path / "model.safetensors", tmp_path / "train")
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "train" / name).read_bytes() == (unbroken.folder / name).read_bytes()
    assert rows_of(tmp_path / "train") == rows_of(unbroken.folder)


def test_another_seed_gives_other_weights(unbroken: UnbrokenRun, few_scenes: Path, tmp_path: Path) -> None:
    train(small_plan(few_scenes, seed=4, steps=1), tmp_path / "model.safetensors", tmp_path / "train")
    other, weights = tensors_of(tmp_path / "model.safetensors"), tensors_of(unbroken.checkpoint)
    rates = [(other[name] - weights[name]).abs().mean() for name in ("classifier.1.weight", "backbone.stem.0.weight")]
    assert min(rates) > 0.01  # far more than a few steps change


def test_the_table_has_a_row_every_ten_steps_and_at_every_validation(unbroken: UnbrokenRun, few_scenes: Path) -> None:
    rows = rows_of(unbroken.folder)
    assert [row["step"] for row in rows] == ["4", "8", "10", "12"]
    assert [bool(row["miou"]) for row in rows] == [True, True, False, True]
    assert [float(row["epoch"]) for row in rows] == [2, 4, 5, 6]  # five images make two batches of two
    plan = small_plan(few_scenes)
    assert [float(row["learning_rate"]) for row in rows] == [plan.rate_at(step) for step in (3, 7, 9, 11)]


def test_the_tables_loss_is_the_mean_since_the_last_row(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    step = loop.update

    def noted(*arguments: object) -> float:
        losses.append(step(*arguments))  # type: ignore[arg-type]  # passed through
        return losses[-1]

    monkeypatch.setattr(loop, "update", noted)
    train(small_plan(few_scenes), tmp_path / "model.safetensors", tmp_path / "train")
    means = [float(np.mean(losses[a:b])) for a, b in ((0, 4), (4, 8), (8, 10), (10, 12))]
    assert [float(row["loss"]) for row in rows_of(tmp_path / "train")] == pytest.approx(means)


def test_the_best_checkpoint_is_the_one_with_the_highest_miou(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mious = iter((0.2, 0.5, 0.5, 0.3))
    scores = SegmentationScores(0.0, 0.0, {}, 3)
    monkeypatch.setattr(loop, "validate", lambda *_: replace(scores, miou=next(mious)))
    result = train(small_plan(few_scenes, steps=4, validate_every=1), tmp_path / "model.safetensors", tmp_path / "train")
    assert result.miou == 0.5
    best, last = (load_checkpoint(tmp_path / "train" / f"{name}.safetensors")[1].training for name in ("best", "last"))
    assert best is not None and (best.steps, best.miou) == (2, 0.5)  # the first of two equals
    assert last is not None and (last.steps, last.miou) == (4, 0.3)
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "train" / "best.safetensors").read_bytes()


def test_the_result_is_what_the_checkpoint_scores(unbroken: UnbrokenRun, few_scenes: Path) -> None:
    model, spec = load_checkpoint(unbroken.checkpoint)
    scores = independent_scores(model, few_scenes)
    assert unbroken.result.miou == pytest.approx(scores[0], abs=1e-12)
    assert unbroken.result.pixel_accuracy == pytest.approx(scores[1], abs=1e-12)
    assert spec.training is not None and spec.training.data == str(few_scenes.resolve())
    assert (spec.training.miou, spec.training.pixel_accuracy) == (unbroken.result.miou, unbroken.result.pixel_accuracy)
    assert unbroken.result.steps == 12 and unbroken.result.seconds > 0


def test_validation_leaves_the_model_in_the_mode_it_was_in(few_scenes: Path) -> None:
    model, data = lively_model().train(), open_dataset(few_scenes, "val")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert validate(model, small_spec(), data, Fabric(accelerator="cpu", devices=1)).images == 3
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_curve_is_a_picture(unbroken: UnbrokenRun) -> None:
    with Image.open(unbroken.folder / "curve.png") as picture:
        assert picture.format == "PNG" and picture.size[0] > 600
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


@pytest.mark.parametrize("rows", [[], [Row(10, 0.5, 0.1, 2.0, None, None, 1.0)]], ids=["no row", "no validation"])
def test_a_run_stopped_early_has_a_curve_too(tmp_path: Path, rows: list[Row]) -> None:
    draw_curve(tmp_path / "curve.png", rows)
    with Image.open(tmp_path / "curve.png") as picture:
        picture.verify()


def test_an_earlier_model_is_kept_beside_the_new_one(few_scenes: Path, tmp_path: Path) -> None:
    checkpoint, previous = tmp_path / "model.safetensors", tmp_path / "model.previous.safetensors"
    checkpoint.write_bytes(b"the model of last week")
    train(small_plan(few_scenes, steps=2), checkpoint, tmp_path / "train")
    assert previous.read_bytes() == b"the model of last week"
    load_checkpoint(checkpoint)


def test_publishing_the_same_model_again_keeps_the_one_before_it(tmp_path: Path) -> None:
    best, checkpoint = tmp_path / "best.safetensors", tmp_path / "model.safetensors"
    for content in (b"old", b"new", b"new"):
        best.write_bytes(content)
        loop.publish(best, checkpoint)
    assert checkpoint.read_bytes() == b"new"
    assert (tmp_path / "model.previous.safetensors").read_bytes() == b"old"


def test_publishing_that_fails_leaves_the_old_model_in_place(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.safetensors"
    checkpoint.write_bytes(b"old")
    with pytest.raises((OSError, UserError)):
        loop.publish(tmp_path / "missing.safetensors", checkpoint)
    assert checkpoint.read_bytes() == b"old"


# The loss


def cross_entropy_by_hand(logits: NDArray[np.float64], labels: NDArray[np.int64], ignore_index: int) -> float:
    """Mean over the counted pixels of −log softmax(logits)[label], pixel by pixel."""
    losses = []
    for n, y, x in np.ndindex(*labels.shape):
        if labels[n, y, x] != ignore_index:
            scores = logits[n, :, y, x]
            losses.append(math.log(sum(math.exp(s) for s in scores)) - scores[labels[n, y, x]])
    return float(np.mean(losses))


def batch_loss(scores: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Plain cross entropy of a batch that is computed in one part."""
    labelled = (labels != ignore_index).sum().clamp(min=1)
    return SegmentationLoss(LossChoice(), ignore_index)(scores, labels, labelled)


@pytest.mark.parametrize("ignore_index", [255, 3, 11])
def test_ignored_pixels_do_not_count(ignore_index: int) -> None:
    random = np.random.default_rng(0)
    logits = random.standard_normal((2, 3, 5, 4))
    labels = random.choice([0, 1, 2, ignore_index], size=(2, 5, 4))
    loss = batch_loss(torch.from_numpy(logits), torch.from_numpy(labels), ignore_index)
    assert float(loss) == pytest.approx(cross_entropy_by_hand(logits, labels, ignore_index))


def test_scores_at_ignored_pixels_get_no_gradient() -> None:
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    labels[0, 1, 2] = 2
    batch_loss(scores, labels, 255).backward()  # type: ignore[no-untyped-call]  # torch's own
    assert scores.grad is not None
    touched = scores.grad.abs().sum(1)[0] > 0
    assert touched.nonzero().tolist() == [[1, 2]]


def test_scores_are_upsampled_to_the_label_never_the_label_shrunk() -> None:
    """Paper, section 4.1. A 1×2 map of two classes grows to 1×4 with weights 1, ¾, ¼, 0."""
    scores = torch.tensor([[[[0.0, 4.0]], [[0.0, 0.0]]]], dtype=torch.float64)
    labels = torch.zeros(1, 1, 4, dtype=torch.int64)
    expected = np.mean([math.log(1 + math.exp(-s)) for s in (0.0, 1.0, 3.0, 4.0)])
    assert float(batch_loss(scores, labels, 255)) == pytest.approx(expected)


def test_a_batch_without_a_counted_pixel_costs_nothing_and_teaches_nothing() -> None:
    scores = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = batch_loss(scores, torch.full((2, 8, 8), 255), 255)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    assert float(loss.detach()) == 0
    assert scores.grad is not None and not scores.grad.any()


def test_batches_without_a_counted_pixel_leave_finite_weights(few_scenes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(few_scenes, data)
    for label in sorted(data.glob("train/labels/*.png"))[1:]:
        Image.fromarray(np.full_like(read_label(label), 255)).save(label)
    train(small_plan(data, steps=4, validate_every=1), tmp_path / "model.safetensors", tmp_path / "train")
    assert 0.0 in {float(row["loss"]) for row in rows_of(tmp_path / "train")}
    assert all(t.isfinite().all() for t in tensors_of(tmp_path / "train" / "last.safetensors").values())


def test_a_loss_that_is_not_finite_fails_and_leaves_the_good_files(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "model.safetensors"
    checkpoint.write_bytes(b"good")
    real, calls = SegmentationLoss.__call__, iter(range(100))
    monkeypatch.setattr(SegmentationLoss, "__call__", lambda *args: real(*args) * (math.nan if next(calls) == 6 else 1))
    with pytest.raises(CheckFailed, match=r"loss is nan at step 6; lower --learning-rate \(it is 0.000353553\)"):
        train(small_plan(few_scenes), checkpoint, tmp_path / "train")
    assert checkpoint.read_bytes() == b"good"
    for name in ("best", "last"):
        model, spec = load_checkpoint(tmp_path / "train" / f"{name}.safetensors")
        assert spec.training is not None and spec.training.steps == 4
        assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_a_learning_rate_far_too_high_is_told_from_a_good_run(few_scenes: Path, tmp_path: Path) -> None:
    plan = small_plan(few_scenes, optimiser="sgd", learning_rate=1e30)
    with pytest.raises(CheckFailed, match="not finite|the loss is"):
        train(plan, tmp_path / "model.safetensors", tmp_path / "train")
    assert not (tmp_path / "model.safetensors").exists()


# Parts of the network that only training uses


def test_the_auxiliary_head_is_trained_and_kept(few_scenes: Path, tmp_path: Path) -> None:
    plan = small_plan(few_scenes, steps=3, architecture=replace(SMALL, auxiliary=True), weight_decay=0.0)
    train(plan, tmp_path / "model.safetensors", tmp_path / "train")
    torch.manual_seed(plan.seed)
    start = DeepLabV3(plan.architecture, len(plan.classes)).state_dict()
    for name, tensor in tensors_of(tmp_path / "train" / "last.safetensors").items():
        if name.startswith("aux_classifier."):
            assert not torch.equal(tensor, start[name]), name


def test_the_auxiliary_loss_counts_with_its_weight(few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[float] = []
    real = SegmentationLoss.__call__

    def noted(*arguments: object) -> torch.Tensor:
        loss = real(*arguments)  # type: ignore[arg-type]  # passed through
        parts.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(SegmentationLoss, "__call__", noted)
    plan = small_plan(few_scenes, steps=1, architecture=replace(SMALL, auxiliary=True), loss=LossChoice(auxiliary_weight=0.25))
    train(plan, tmp_path / "model.safetensors", tmp_path / "train")
    assert float(rows_of(tmp_path / "train")[0]["loss"]) == pytest.approx(parts[0] + 0.25 * parts[1])


def test_batch_norm_learns_statistics_everywhere_image_pooling_included(unbroken: UnbrokenRun) -> None:
    weights = tensors_of(unbroken.folder / "last.safetensors")
    counters = {name: int(tensor) for name, tensor in weights.items() if name.endswith("num_batches_tracked")}
    assert "classifier.0.convs.4.2.num_batches_tracked" in counters
    assert set(counters.values()) == {12}
    assert all(weights[name.replace("num_batches_tracked", "running_mean")].any() for name in counters)


def test_bfloat16_trains_on_a_cpu_and_leaves_float32_weights(few_scenes: Path, tmp_path: Path) -> None:
    train(small_plan(few_scenes, steps=3, precision="bf16-mixed"), tmp_path / "model.safetensors", tmp_path / "train")
    weights = tensors_of(tmp_path / "model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.float32, torch.int64}
    assert all(t.isfinite().all() for t in weights.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_float16_without_a_gpu_is_refused(few_scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="16-mixed"):
        train(small_plan(few_scenes, precision="16-mixed"), tmp_path / "model.safetensors", tmp_path / "train")


def test_weight_decay_spares_batch_norm_and_biases() -> None:
    model = lively_model()
    groups = preparation._optimiser(small_plan(Path("data"), weight_decay=0.1), model).param_groups
    decayed, free = ({id(p) for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    for name, parameter in model.named_parameters():
        assert id(parameter) in (decayed if parameter.ndim == 4 else free), name
    assert len(decayed) + len(free) == len(list(model.parameters()))


def test_training_starts_from_the_backbone_weights_given(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {name: tensor.clone() for name, tensor in lively_model(seed=8).backbone.state_dict().items()}
    torch.save(given, tmp_path / "backbone.pth")

    def stop(run: loop.Run, *rest: object) -> float:
        assert all(torch.equal(tensor, given[name]) for name, tensor in run.model.backbone.state_dict().items())
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "update", stop)
    with pytest.raises(KeyboardInterrupt):
        train(
            small_plan(few_scenes, backbone_weights=tmp_path / "backbone.pth"),
            tmp_path / "model.safetensors",
            tmp_path / "train",
        )
