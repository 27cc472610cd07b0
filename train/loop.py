"""The training loop: plan in, best checkpoint out."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from dlv3deploy.core.datasets import Dataset, open_dataset
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import replacing, sha256_of
from dlv3deploy.core.metrics import ConfusionMatrix, SegmentationScores
from dlv3deploy.core.progress import say
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import ModelSpec, OutputSpec, TrainingFacts
from dlv3deploy.train.augment import Augmentation
from dlv3deploy.train.checkpoint import load_backbone_weights, save_checkpoint
from dlv3deploy.train.curve import draw_curve
from dlv3deploy.train.deeplabv3 import DeepLabV3, TrainingForward, upsample_to
from dlv3deploy.train.interrupts import StepAbandoned, ignore_interrupts, interrupts_held
from dlv3deploy.train.meter import TrainingMeter
from dlv3deploy.train.plan import TrainingPlan
from dlv3deploy.train.precision import precision_for
from dlv3deploy.train.run_state import Progress, Row, RunFolder
from dlv3deploy.train.samples import AugmentedSamples, EpochBatches, steps_per_epoch
from dlv3deploy.train.torch_engine import TorchEngine

ROWS_EVERY = 10  # steps between two rows of metrics.csv


@dataclass(frozen=True)
class TrainingResult:
    """The best validation of the run and where its checkpoint lies."""

    checkpoint: Path
    miou: float
    pixel_accuracy: float
    steps: int
    seconds: float


@dataclass
class Run:
    """What the steps of one run share."""

    plan: TrainingPlan
    folder: RunFolder
    fabric: Fabric
    model: DeepLabV3
    trained: torch.nn.Module  # `model` as Fabric wrapped it
    optimiser: torch.optim.Optimizer
    train_set: Dataset
    val_set: Dataset
    progress: Progress
    rows: list[Row]

    @property
    def is_saved(self) -> bool:
        """Whether this very step has been validated, and saved with its figures."""
        return bool(self.rows) and self.rows[-1].step == self.progress.step and self.rows[-1].miou is not None

    def spec(self, scores: SegmentationScores | None = None) -> ModelSpec:
        """The model's description; `scores` are the validation's of these very weights, when there was one."""
        figures = (scores.miou, scores.pixel_accuracy) if scores else (None, None)
        facts = TrainingFacts(str(self.plan.data.resolve()), self.progress.step, *figures)
        return ModelSpec(self.plan.classes, self.plan.input, OutputSpec("scores"), self.plan.architecture, facts)


def train(plan: TrainingPlan, checkpoint: Path, folder: Path, resume: bool = False) -> TrainingResult:
    """Run `plan`, or go on with it where it stopped, and leave the best checkpoint at `checkpoint`.

    `folder` takes what a run leaves behind (state, metrics, curve, best and last checkpoint). On Ctrl-C the state is saved
    before KeyboardInterrupt goes on. Raises UserError for data or weights that do not fit, CheckFailed when the loss diverges.
    """
    run = _prepare(plan, RunFolder(folder), resume)
    loader = run.fabric.setup_dataloaders(_loader(run), use_distributed_sampler=False)
    started = time.monotonic() - run.progress.seconds
    with _saving_on_interrupt(run), TrainingMeter(plan.steps, run.progress, run.fabric.is_global_zero) as meter:
        _settle(run)
        batches = iter(loader)
        while run.progress.step < plan.steps:
            with interrupts_held():
                images, labels = next(batches)
                loss = _step(run, run.progress.step, images, labels)
                run.progress.count(loss, time.monotonic() - started)
            scores = _settle(run)
            meter.update(run.progress, loss, scores)
    if not run.fabric.is_global_zero:
        raise SystemExit  # Fabric ran the whole program again for another device; what follows training is done once
    publish(run.folder.best, checkpoint)
    best = run.progress
    return TrainingResult(checkpoint, best.best_miou, best.best_pixel_accuracy, best.step, best.seconds)


def publish(best: Path, checkpoint: Path) -> None:
    """Put the best checkpoint in its place; another one that was there stays beside it as `….previous.safetensors`."""
    if checkpoint.is_file():
        if sha256_of(checkpoint) == sha256_of(best):
            return
        _copy(checkpoint, checkpoint.with_suffix(".previous.safetensors"))
    _copy(best, checkpoint)


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as partial:
        shutil.copyfile(source, partial)


def _prepare(plan: TrainingPlan, folder: RunFolder, resume: bool) -> Run:
    train_set, val_set = open_dataset(plan.data, "train", plan.classes), open_dataset(plan.data, "val", plan.classes)
    if os.environ.get("LOCAL_RANK", "0") == "0":  # before further processes start, which would wait for this one for ever
        _check_data(train_set, val_set)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(accelerator="auto", devices="auto", precision=precision_for(plan.precision))
    fabric.launch()
    if plan.batch_size < 2 * fabric.world_size:
        raise UserError(
            f"batch size {plan.batch_size} on {fabric.world_size} devices",
            "batch norm needs at least 2 images on each",
            f"use --batch-size {2 * fabric.world_size} or more, or hide devices with CUDA_VISIBLE_DEVICES",
        )
    torch.manual_seed(plan.seed)
    model = DeepLabV3(plan.architecture, len(plan.classes))
    if plan.backbone_weights and not resume:
        load_backbone_weights(plan.backbone_weights, model)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types it for tensors only
    optimiser = _optimiser(plan, model)
    state = folder.load_state(plan) if resume else None
    if state:
        model.load_state_dict(state.model)
    trained, wrapped = fabric.setup(TrainingForward(model), optimiser)
    if state:
        wrapped.load_state_dict(state.optimiser)
    elif fabric.is_global_zero:
        folder.forget()
    progress, rows = (state.progress, state.rows) if state else (Progress(), [])
    return Run(plan, folder, fabric, model, trained, wrapped, train_set, val_set, progress, rows)


def _check_data(train_set: Dataset, val_set: Dataset) -> None:
    """Say what training will see. Raises UserError for damaged data, and for a set too small to hold anything out."""
    if set(train_set.samples) & set(val_set.samples):
        raise UserError(str(train_set.root), "holds a single image, which cannot train and validate at once", "add more images")
    say(f"training on {len(train_set)} images, validating on {len(val_set)} others")
    report = train_set.check()
    val_set.check()
    if report.absent:
        say(f"no training label holds {', '.join(report.absent)}; the model cannot learn what it never sees")


def _optimiser(plan: TrainingPlan, model: DeepLabV3) -> torch.optim.Optimizer:
    """Weight decay acts on convolution weights alone, not on batch norm or biases."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if plan.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=plan.initial_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=plan.initial_rate)


def _loader(run: Run) -> DataLoader[tuple[Tensor, Tensor]]:
    plan = run.plan
    samples = AugmentedSamples(run.train_set, Augmentation(plan.crop, plan.scale, plan.flip), plan.input, plan.seed)
    batches = EpochBatches(
        run.train_set, plan.batch_size, plan.seed, run.progress.step, plan.steps, run.fabric.global_rank, run.fabric.world_size
    )
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=plan.workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_interrupts,
    )


def _step(run: Run, step: int, images: Tensor, labels: Tensor) -> float:
    """One update; the mean loss of all processes.

    Dropout's seed depends on the step and the process alone, so that a resumed run repeats it.
    """
    torch.manual_seed(hash((run.plan.seed, step, run.fabric.global_rank)) & 0x7FFF_FFFF)
    for group in run.optimiser.param_groups:
        group["lr"] = run.plan.rate_at(step)
    run.trained.train()
    scores, auxiliary = run.trained(images.contiguous(memory_format=torch.channels_last))
    loss = segmentation_loss(scores, labels, run.plan.classes.ignore_index)
    if auxiliary is not None:
        loss = loss + run.plan.auxiliary_weight * segmentation_loss(auxiliary, labels, run.plan.classes.ignore_index)
    run.optimiser.zero_grad(set_to_none=True)
    run.fabric.backward(loss)
    run.optimiser.step()
    value = float(run.fabric.all_reduce(loss.detach()))
    if not math.isfinite(value):
        raise CheckFailed(f"the loss is {value} at step {step}; lower --learning-rate (it is {run.plan.initial_rate:g})")
    return value


def segmentation_loss(scores: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Mean cross entropy of the upsampled scores over the pixels that count; 0 when there is none."""
    logits = upsample_to(scores, labels.shape[1], labels.shape[2])
    total = cross_entropy(logits, labels, ignore_index=ignore_index, reduction="sum")
    return total / (labels != ignore_index).sum().clamp(min=1)


def _settle(run: Run) -> SegmentationScores | None:
    """Do what this step is due for, once: a validation, a row of the table, and saving what was validated."""
    step = run.progress.step
    if run.progress.settled == step:
        return None
    due = step % run.plan.validate_every == 0 or step == run.plan.steps
    scores = validate(run.model, run.spec(), run.val_set, run.fabric) if due else None
    is_best = scores is not None and scores.miou > run.progress.best_miou
    with interrupts_held():
        run.progress.settled = step
        if scores and is_best:
            run.progress.best_miou, run.progress.best_pixel_accuracy = scores.miou, scores.pixel_accuracy
        if scores or step % ROWS_EVERY == 0:
            run.rows.append(_row(run, scores))
            run.progress.loss_sum, run.progress.loss_steps = 0.0, 0
        if scores and run.fabric.is_global_zero:
            if is_best:
                save_checkpoint(run.folder.best, run.model, run.spec(scores))
            _save(run, scores)
    return scores


def validate(model: DeepLabV3, spec: ModelSpec, data: Dataset, fabric: Fabric) -> SegmentationScores:
    """Scores on every sample, each at its label's size; processes share the samples and add up their counts."""
    matrix = ConfusionMatrix(data.classes)
    if fabric.world_size > 1:  # batch-norm statistics differ between processes; the first one's are saved
        model.load_state_dict(fabric.broadcast(dict(model.named_buffers())), strict=False)
    was_training = model.training
    model.eval()
    segment = Segmenter(TorchEngine(model, spec), (spec.input.height, spec.input.width))
    for sample in data.samples[fabric.global_rank :: fabric.world_size]:
        frame, label = sample.read()
        matrix.collect(segment(frame, label.shape), label)
    model.train(was_training)
    counts = torch.from_numpy(matrix.counts).to(fabric.device)
    matrix.counts = fabric.all_reduce(counts, reduce_op="sum").cpu().numpy()
    return replace(matrix.compute(), images=len(data))


def _row(run: Run, scores: SegmentationScores | None) -> Row:
    done = run.progress
    epoch = done.step / steps_per_epoch(len(run.train_set), run.plan.batch_size)
    loss = done.loss_sum / done.loss_steps
    miou, accuracy = (scores.miou, scores.pixel_accuracy) if scores else (None, None)
    return Row(done.step, round(epoch, 3), run.plan.rate_at(done.step - 1), loss, miou, accuracy, round(done.seconds, 2))


def _save(run: Run, scores: SegmentationScores | None) -> None:
    """The last checkpoint, the tables and, when all of them are there, the state that counts on them."""
    save_checkpoint(run.folder.last, run.model, run.spec(scores))
    run.folder.write_rows(run.rows)
    draw_curve(run.folder.curve, run.rows)
    run.folder.save_state(run.plan, run.progress, run.rows, run.model.state_dict(), run.optimiser.state_dict())


@contextmanager
def _saving_on_interrupt(run: Run) -> Iterator[None]:
    """On Ctrl-C keep what was learnt, so that `--resume` goes on from this very step."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning_fabric|torch.utils.data")
        try:
            yield
        except StepAbandoned:
            say("stopped in the middle of a step; go on with the same command and --resume from the last validation")
            raise
        except KeyboardInterrupt:
            if run.fabric.is_global_zero:
                if not run.is_saved:
                    with interrupts_held():
                        _save(run, None)
                say(f"stopped at step {run.progress.step} of {run.plan.steps}; go on with the same command and --resume")
            raise


def check_fits(plan: TrainingPlan, folder: Path, resume: bool, restart: bool) -> None:
    """Raise UserError when starting would overwrite an unfinished run, before anything slow happens."""
    if resume and restart:
        raise UserError("--resume and --restart", "exclude each other", "give one of them")
    if resume:
        RunFolder(folder).load_state(plan)
    elif not restart:
        RunFolder(folder).require_free()
