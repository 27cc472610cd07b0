"""How running statistics begin, against means written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import shallow_model, small_plan, small_spec, tensors_of
from torch import nn

from dlv3deploy.train.batch_norm import MANY, RunningStatistics, count_what_was_seen
from dlv3deploy.train.checkpoint import save_checkpoint
from dlv3deploy.train.loop import train

pytestmark = pytest.mark.usefixtures("shallow_network")


def fed(norm: nn.BatchNorm2d, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """The running mean behind every batch of N×1×H×W."""
    statistics, means = RunningStatistics(norm), []
    for batch in batches:
        with statistics.count_batch():
            norm(batch)
        assert norm.running_mean is not None
        means.append(norm.running_mean.clone())
    return means


def test_statistics_begin_as_the_mean_of_what_was_and_all_batches_and_go_on_as_a_moving_one() -> None:
    torch.manual_seed(0)
    batches = [7 + torch.randn(4, 1, 5, 5) for _ in range(8)]
    norm = nn.BatchNorm2d(1, momentum=0.25)
    means = fed(norm, batches)
    own = [batch.mean().item() for batch in batches]
    expected = [sum(own[:n]) / (n + 1) for n in range(1, 4)]
    for value in own[3:]:
        expected.append(0.75 * expected[-1] + 0.25 * value)
    assert [mean.item() for mean in means] == pytest.approx(expected, rel=1e-5)
    assert norm.momentum == 0.25


def test_a_thousandth_of_the_first_variance_is_left_after_300_batches() -> None:
    norm = nn.BatchNorm2d(1, momentum=0.01)
    batch = torch.zeros(4, 1, 3, 3)
    fed(norm, [batch] * 300)
    assert norm.running_var is not None
    assert norm.running_var.item() == pytest.approx(0.01 * 0.99**201, rel=1e-3)


def test_a_deep_network_is_finite_though_its_first_batches_vary_less_than_the_next() -> None:
    """Every layer grows by the same factor; without what was there, the last one is infinite in 32 bits."""
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.BatchNorm2d(1) for _ in range(100)))
    for norm in layers:
        fed(norm, [0.1 * torch.randn(4, 1, 5, 5)])
    assert layers.eval()(torch.randn(4, 1, 5, 5)).isfinite().all()


def test_statistics_go_on_where_their_counter_stands() -> None:
    torch.manual_seed(0)
    batches = [torch.randn(4, 1, 5, 5) for _ in range(6)]
    whole, broken_off = nn.BatchNorm2d(1, momentum=0.01), nn.BatchNorm2d(1, momentum=0.01)
    fed(whole, batches)
    fed(broken_off, batches[:2])
    resumed = nn.BatchNorm2d(1, momentum=0.01)
    resumed.load_state_dict(broken_off.state_dict())
    fed(resumed, batches[2:])
    assert resumed.running_mean is not None
    assert whole.running_mean is not None
    assert torch.equal(resumed.running_mean, whole.running_mean)


def test_statistics_without_a_counter_were_those_of_many_batches() -> None:
    old, new, counted = (nn.BatchNorm2d(2, momentum=0.1) for _ in range(3))
    old.load_state_dict({**old.state_dict(), "running_mean": torch.tensor([3.0, 0.0])})
    counted.load_state_dict({**old.state_dict(), "num_batches_tracked": torch.tensor(5)})
    count_what_was_seen(nn.ModuleList([old, new, counted, nn.BatchNorm2d(2, track_running_stats=False)]))
    assert [int(norm.num_batches_tracked or 0) for norm in (old, new, counted)] == [MANY, 0, 5]
    before = old.running_mean
    assert before is not None
    expected = 0.9 * before.clone() + 0.1 * torch.tensor([1.0, 2.0])
    (after,) = fed(old, [torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1).expand(2, 2, 3, 3)])
    torch.testing.assert_close(after, expected)


def test_the_momentum_of_a_run_is_the_share_of_each_new_batch(few_scenes: Path, tmp_path: Path) -> None:
    start, mean = tmp_path / "start.safetensors", "backbone.stem.1.running_mean"
    model = shallow_model()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.fill_(0.5)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(100)
    save_checkpoint(start, model, small_spec())
    found = {}
    for momentum in (0.25, 1.0):
        root = tmp_path / str(momentum)
        options: dict[str, Any] = {"steps": 1, "start_from": start, "batch_norm_momentum": momentum}
        train(small_plan(few_scenes, **options), root / "model.safetensors", root / "train")
        found[momentum] = tensors_of(root / "train" / "last.safetensors")[mean]
    torch.testing.assert_close(found[0.25], 0.75 * 0.5 + 0.25 * found[1.0])


def test_a_short_run_from_random_weights_ends_with_statistics_of_its_images(few_scenes: Path, tmp_path: Path) -> None:
    """Whatever the momentum: with 1e-6 alone they would be a mean of 0 and a variance of 1."""
    for momentum in (1e-6, 0.1):
        root = tmp_path / str(momentum)
        train(small_plan(few_scenes, steps=3, batch_norm_momentum=momentum), root / "model.safetensors", root / "train")
    slow, usual = (tensors_of(tmp_path / name / "train" / "last.safetensors") for name in ("1e-06", "0.1"))
    norms = [name for name in slow if name.endswith(("running_mean", "running_var"))]
    assert len(norms) > 16
    for name in norms:
        torch.testing.assert_close(slow[name], usual[name], msg=name)
