"""What can be added to the cross entropy, each against a plain NumPy computation; and that parts add up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from dlv3deploy.train.loss import FEWEST_HARD, SegmentationLoss, dice_loss
from dlv3deploy.train.loss_choice import LossChoice

IGNORED = 255


def example(seed: int, images: int = 3) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits N×4×6×5 and labels at the same size, so that nothing is interpolated."""
    random = np.random.default_rng(seed)
    return random.standard_normal((images, 4, 6, 5)) * 2, random.choice([0, 1, 2, 3, IGNORED], size=(images, 6, 5))


def loss_of(
    choice: LossChoice, logits: NDArray[np.float64], labels: NDArray[np.int64], weights: list[float] | None = None
) -> float:
    given = torch.tensor(weights) if weights else None
    labelled = torch.tensor(float((labels != IGNORED).sum()))
    return float(SegmentationLoss(choice, IGNORED, given)(torch.from_numpy(logits), torch.from_numpy(labels), labelled))


def log_probabilities(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """log softmax of the labelled pixels, n×C, and their labels."""
    kept = labels != IGNORED
    scores = np.moveaxis(logits, 1, -1)[kept]
    return scores - np.log(np.exp(scores).sum(1, keepdims=True)), labels[kept]


def test_label_smoothing_spreads_a_share_of_each_label_over_all_classes() -> None:
    logits, labels = example(0)
    logs, ids = log_probabilities(logits, labels)
    target = np.full(logs.shape, 0.1 / 4)
    target[np.arange(len(ids)), ids] += 0.9
    assert loss_of(LossChoice(label_smoothing=0.1), logits, labels) == pytest.approx(
        float(-(target * logs).sum(1).mean()), rel=1e-5
    )


def test_class_weights_weigh_pixels_and_the_mean_is_over_all_of_them() -> None:
    logits, labels = example(1)
    weights = [0.5, 2.0, 1.0, 3.0]
    logs, ids = log_probabilities(logits, labels)
    expected = float(np.mean([-weights[i] * log[i] for log, i in zip(logs, ids, strict=True)]))
    assert loss_of(LossChoice(), logits, labels, weights) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.7, 1.0])
def test_mining_learns_from_hard_pixels_alone(threshold: float) -> None:
    logits, labels = example(2)
    logs, ids = log_probabilities(logits, labels)
    own = np.array([log[i] for log, i in zip(logs, ids, strict=True)])
    hard = np.exp(own) < threshold
    assert hard.sum() > FEWEST_HARD * len(own)
    assert loss_of(LossChoice(hard_below=threshold), logits, labels) == pytest.approx(float(-own[hard].mean()), rel=1e-5)


def test_mining_keeps_the_hardest_sixteenth_when_all_is_easy() -> None:
    _, labels = example(3)
    logits = np.where(np.arange(4)[None, :, None, None] == labels[:, None], 9.0, 0.0)
    logits += np.random.default_rng(0).standard_normal(logits.shape) * 0.1
    logs, ids = log_probabilities(logits, labels)
    own = np.sort([log[i] for log, i in zip(logs, ids, strict=True)])
    fewest = int(np.ceil(len(own) * FEWEST_HARD))
    assert loss_of(LossChoice(hard_below=0.5), logits, labels) == pytest.approx(float(-own[:fewest].mean()), rel=1e-4)


def test_dice_is_one_minus_the_mean_overlap_of_the_classes_that_are_there() -> None:
    logits, labels = example(4)
    labels[labels == 3] = 0  # no label holds class 3
    logs, ids = log_probabilities(logits, labels)
    shares, cells = np.exp(logs), np.eye(4)[ids]
    overlaps = [2 * (shares[:, c] * cells[:, c]).sum() / (shares[:, c].sum() + cells[:, c].sum()) for c in (0, 1, 2)]
    plain = loss_of(LossChoice(), logits, labels)
    assert loss_of(LossChoice(dice_weight=0.5), logits, labels) - plain == pytest.approx(
        0.5 * (1 - float(np.mean(overlaps))), rel=1e-5
    )


def dice_of_one_hot_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The formula as it is written, with a whole tensor of zeros and ones."""
    counts = (labels != IGNORED)[:, None]
    present = torch.nn.functional.one_hot(labels.where(counts[:, 0], 0), logits.shape[1]).movedim(3, 1) * counts
    shares = logits.softmax(1) * counts
    together, either = (shares * present).sum((0, 2, 3)), (shares + present).sum((0, 2, 3))
    held = present.sum((0, 2, 3)) > 0
    return (1 - 2 * together / either)[held].mean()


@pytest.mark.parametrize("seed", range(5))
def test_dice_and_its_gradient_are_those_of_one_hot_labels(seed: int) -> None:
    scores, ids = example(seed)
    labels = torch.from_numpy(ids)
    one, other = (torch.from_numpy(scores).requires_grad_() for _ in range(2))
    mine, plain = dice_loss(one, labels, labels != IGNORED), dice_of_one_hot_labels(other, labels)
    mine.backward()  # type: ignore[no-untyped-call]  # torch's own
    plain.backward()  # type: ignore[no-untyped-call]  # torch's own
    torch.testing.assert_close(mine, plain)
    torch.testing.assert_close(one.grad, other.grad)


class LargestInteger(TorchDispatchMode):
    """The number of elements of the largest int64 tensor that is made inside."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.int64:
            self.numel = max(self.numel, made.numel())
        return made


def test_dice_makes_no_integer_for_each_pixel_and_class() -> None:
    labels = torch.randint(0, 9, (2, 16, 16))
    with LargestInteger() as seen:
        dice_loss(torch.randn(2, 9, 16, 16), labels, labels != IGNORED)
    assert 0 < seen.numel <= labels.numel()


@pytest.mark.parametrize("choice", [LossChoice(label_smoothing=0.2), LossChoice(hard_below=0.6), LossChoice(dice_weight=1.0)])
def test_nothing_labelled_costs_nothing_and_teaches_nothing(choice: LossChoice) -> None:
    scores = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = SegmentationLoss(choice, IGNORED)(scores, torch.full((2, 8, 8), IGNORED), torch.tensor(1.0))
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    assert float(loss.detach()) == 0 and scores.grad is not None and not scores.grad.any()


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
def test_the_losses_of_parts_add_up_to_the_batchs(weights: list[float] | None) -> None:
    logits, labels = example(5, images=4)
    labels[0, 1:] = IGNORED  # parts with very different numbers of labelled pixels
    choice = LossChoice(label_smoothing=0.1)
    given = torch.tensor(weights) if weights else None
    loss, labelled = SegmentationLoss(choice, IGNORED, given), torch.tensor(float((labels != IGNORED).sum()))
    parts = [loss(torch.from_numpy(logits[p]), torch.from_numpy(labels[p]), labelled) for p in ([0], [1, 2, 3])]
    assert float(sum(parts)) == pytest.approx(loss_of(choice, logits, labels, weights), rel=1e-5)
