"""From a plan to a run that is ready for its first step, or for the step where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from dlv3deploy.core.datasets import class_weights, open_dataset
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.progress import say
from dlv3deploy.train import batch_norm
from dlv3deploy.train.augment import Augmentation
from dlv3deploy.train.checkpoint import load_backbone_weights, load_start
from dlv3deploy.train.data_check import check_data
from dlv3deploy.train.devices import is_first_process, launched, with_shared_statistics
from dlv3deploy.train.interrupts import ignore_interrupts
from dlv3deploy.train.loss import SegmentationLoss
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, TrainingForward
from dlv3deploy.train.plan import TrainingPlan
from dlv3deploy.train.run import Run
from dlv3deploy.train.run_state import Progress, RunFolder, SavedState
from dlv3deploy.train.samples import AugmentedSamples, EpochBatches, Pair, collate
from dlv3deploy.train.weights.state_dict import first_line


def prepare(plan: TrainingPlan, folder: RunFolder, resume: bool) -> Run:
    """The network, data that has been checked, processes and an optimiser, each as the saved state has it when resuming."""
    state = folder.load_state(plan) if resume else None
    model = _network(plan, state, folder)
    if is_first_process():
        for line in plan.lines(_beginning(plan, state, folder)):
            say(line)
    train_set, val_set = open_dataset(plan.data, plan.split, plan.classes), open_dataset(plan.data, "val", plan.classes)
    # Before further processes start, which would wait for this one for ever.
    report = check_data(train_set, val_set, folder.root) if is_first_process() else None
    fabric = launched(plan)
    report = fabric.broadcast(report)
    assert report is not None  # the first process has one
    if plan.repeat_classes:
        train_set = train_set.repeating(plan.repeat_classes, report, plan.repeats)
    if plan.sync_batch_norm:
        with_shared_statistics(model, fabric)
    forward: torch.nn.Module = TrainingForward(model)
    if plan.compiled:
        forward.compile()
    trained, optimiser = fabric.setup(forward, _optimiser(plan, model))
    average = _average(plan, model, state)
    if state:
        optimiser.load_state_dict(state.optimiser)
        if state.scaler:
            fabric.strategy.precision.load_state_dict(state.scaler)
    elif fabric.is_global_zero:
        folder.forget()
    progress, rows = (state.progress, state.rows) if state else (Progress(), [])
    weights = class_weights(report, "median-frequency") if plan.loss.class_weights else None
    on_device = None if weights is None else torch.from_numpy(weights).to(fabric.device)
    loss = SegmentationLoss(plan.loss, plan.classes.ignore_index, on_device, plan.coordinates)
    statistics = batch_norm.RunningStatistics(model)
    return Run(plan, folder, fabric, model, trained, average, statistics, loss, optimiser, train_set, val_set, progress, rows)


def _beginning(plan: TrainingPlan, state: SavedState | None, folder: RunFolder) -> str:
    """Where the weights come from, in words."""
    if state:
        return f"step {state.progress.step} of the run in {folder.root}"
    if plan.backbone_weights:
        return f"random weights and the backbone's in {plan.backbone_weights}"
    return str(plan.start_from or "random weights")


def _restore(model: DeepLabV3, state: SavedState, folder: RunFolder) -> None:
    try:
        model.load_state_dict(state.model)
    except RuntimeError as error:
        rule, remedy = (
            "does not fit the network that is asked for",
            "give the same options as before, or start anew with --restart",
        )
        raise UserError(str(folder.state), f"{rule} ({first_line(error)})", remedy) from error


def _network(plan: TrainingPlan, state: SavedState | None, folder: RunFolder) -> DeepLabV3:
    """The network in channels-last layout, with the weights of the saved state, or else those that the plan begins with."""
    torch.manual_seed(plan.seed)
    model = DeepLabV3(plan.architecture, len(plan.classes), plan.dropout)
    if state:
        _restore(model, state, folder)
    elif plan.backbone_weights:
        load_backbone_weights(plan.backbone_weights, model)
    elif plan.start_from:
        load_start(plan.start_from, model, plan.classes)
    batch_norm.count_what_was_seen(model)
    if plan.batch_norm_momentum is not None:
        batch_norm.set_momentum(model, plan.batch_norm_momentum)
    if plan.frozen_batch_norm:
        batch_norm.freeze(model)
    placed: DeepLabV3 = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # typed for tensors only
    return placed


def _optimiser(plan: TrainingPlan, model: DeepLabV3) -> torch.optim.Optimizer:
    """Weight decay acts on convolution weights alone, not on batch norm or biases."""
    learning = [p for p in model.parameters() if p.requires_grad]
    decayed, free = [p for p in learning if p.ndim > 1], [p for p in learning if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if plan.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=plan.initial_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=plan.initial_rate)


def _average(plan: TrainingPlan, model: DeepLabV3, state: SavedState | None) -> AveragedModel | None:
    """The moving average of weights and batch-norm statistics, which begins as a copy of the first step's."""
    if plan.ema_decay is None:
        return None
    moving: Any = get_ema_multi_avg_fn(plan.ema_decay)  # type: ignore[no-untyped-call]  # torch's own
    average = AveragedModel(model, multi_avg_fn=moving, use_buffers=True)
    if state and state.average is not None:
        average.load_state_dict(state.average)
    return average


def batches_of(run: Run) -> Iterator[Pair]:
    """The parts of every batch that this process computes, from the step where the run stands to its last.

    Raises UserError or OSError for a file that can no longer be read.
    """
    plan = run.plan
    samples = AugmentedSamples(run.train_set, Augmentation(plan.crop, plan.scale, plan.flip), plan.input, plan.seed)
    batches = EpochBatches(
        run.train_set,
        plan.batch_size,
        plan.seed,
        run.progress.step,
        plan.steps,
        run.fabric.global_rank,
        run.fabric.world_size,
        plan.accumulate,
    )
    loader: DataLoader[Pair | Exception] = DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=plan.workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_interrupts,
    )
    parts: Any = run.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part
