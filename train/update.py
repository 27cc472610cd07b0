"""One update of the weights, however its batch is spread over processes and passes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.train import batch_norm
from dlv3deploy.train.network.dropout import share_dropout
from dlv3deploy.train.run import Run
from dlv3deploy.train.samples import Pair, part_of_batch


def update(run: Run, step: int, parts: Sequence[Pair]) -> float:
    """Learn from this process's `parts` of one batch; the loss of the whole batch.

    Gradients are those of the mean over all labelled pixels of the batch, and dropout's masks belong to the images' places in
    it, so that (batch norm aside, which sees a part at a time) it does not matter how the batch was spread. Raises CheckFailed
    when the loss is not finite.
    """
    plan, fabric = run.plan, run.fabric
    for group in run.optimiser.param_groups:
        group["lr"] = plan.rate_at(step)
    run.trained.train()
    if plan.frozen_batch_norm:
        batch_norm.hold_statistics(run.model)
    labelled = fabric.all_reduce(_labelled(parts, plan.classes.ignore_index), reduce_op="sum").clamp(min=1)
    run.optimiser.zero_grad(set_to_none=True)
    total = torch.zeros((), device=fabric.device)
    for number, (images, labels) in enumerate(parts):
        _seed_dropout(run, step, number)
        more_follow = number + 1 < len(parts)
        with fabric.no_backward_sync(run.trained, enabled=more_follow), run.statistics.count_batch():
            loss = _loss(run, images, labels, labelled)
            fabric.backward(loss * fabric.world_size)  # DDP takes the mean over processes
        total += loss.detach()
    run.optimiser.step()
    if run.average is not None:
        run.average.update_parameters(run.model)
    value = float(fabric.all_reduce(total, reduce_op="sum"))
    if not math.isfinite(value):
        raise CheckFailed(f"the loss is {value} at step {step}; lower --learning-rate (it is {plan.initial_rate:g})")
    return value


def _labelled(parts: Sequence[Pair], ignore_index: int) -> Tensor:
    return torch.stack([(labels != ignore_index).sum() for _, labels in parts]).sum().float()


def _seed_dropout(run: Run, step: int, number: int) -> None:
    """The same masks for every part of a step, and again when the step is repeated after resuming."""
    torch.manual_seed(hash((run.plan.seed, step)) & 0x7FFF_FFFF)
    positions = part_of_batch(run.plan.batch_size, number, run.plan.accumulate, run.fabric.global_rank, run.fabric.world_size)
    share_dropout(run.model, torch.tensor(positions, device=run.fabric.device), run.plan.batch_size)


def _loss(run: Run, images: Tensor, labels: Tensor, labelled: Tensor) -> Tensor:
    scores, auxiliary = run.trained(images.contiguous(memory_format=torch.channels_last))
    loss = run.loss(scores, labels, labelled)
    if auxiliary is not None:
        loss = loss + run.plan.loss.auxiliary_weight * run.loss(auxiliary, labels, labelled)
    return loss
