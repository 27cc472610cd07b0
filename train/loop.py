"""The training loop: plan in, best checkpoint out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dlv3deploy.core.metrics import SegmentationScores
from dlv3deploy.core.progress import say
from dlv3deploy.train.checkpoint import publish, save_checkpoint
from dlv3deploy.train.curve import draw_curve
from dlv3deploy.train.devices import disconnect
from dlv3deploy.train.interrupts import StepAbandoned, StoppedTogether, interrupts_held, stopping_together
from dlv3deploy.train.meter import TrainingMeter
from dlv3deploy.train.plan import TrainingPlan
from dlv3deploy.train.preparation import batches_of, prepare
from dlv3deploy.train.run import Run
from dlv3deploy.train.run_state import Row, RunFolder
from dlv3deploy.train.samples import steps_per_epoch
from dlv3deploy.train.update import update
from dlv3deploy.train.validation import validate

ROWS_EVERY = 10  # steps between two rows of metrics.csv


@dataclass(frozen=True)
class TrainingResult:
    """The best validation of the run and where its checkpoint lies."""

    checkpoint: Path
    miou: float
    pixel_accuracy: float
    steps: int
    seconds: float


def train(plan: TrainingPlan, checkpoint: Path, folder: Path, resume: bool = False) -> TrainingResult:
    """Run `plan`, or go on with it where it stopped, and leave the best checkpoint at `checkpoint`.

    `folder` takes what a run leaves behind (state, metrics, curve, best and last checkpoint). On Ctrl-C the state is saved
    before KeyboardInterrupt goes on. Raises UserError for data or weights that do not fit, CheckFailed when the loss diverges.
    """
    run = prepare(plan, RunFolder(folder), resume)
    parts = batches_of(run)
    started = time.monotonic() - run.progress.seconds
    meter = TrainingMeter(plan.steps, run.progress, run.fabric.is_global_zero)
    with _saving_on_interrupt(run), meter, stopping_together(run.fabric) as stop_if_asked:
        _settle(run)
        while run.progress.step < plan.steps:
            stop_if_asked()
            with interrupts_held():
                loss = update(run, run.progress.step, [next(parts) for _ in range(plan.accumulate)])
                run.progress.count(loss, time.monotonic() - started)
            scores = _settle(run)
            meter.update(run.progress, loss, scores)
        disconnect(run.fabric)
    if not run.fabric.is_global_zero:
        raise SystemExit  # the program runs once for each device; what follows training is done once
    publish(run.folder.best, checkpoint)
    best = run.progress
    return TrainingResult(checkpoint, best.best_miou, best.best_pixel_accuracy, best.step, best.seconds)


def _settle(run: Run) -> SegmentationScores | None:
    """Do what this step is due for, once: a validation, a row of the table, and saving what was validated."""
    step = run.progress.step
    if run.progress.settled == step:
        return None
    due = step % run.plan.validate_every == 0 or step == run.plan.steps
    scores = validate(run.judged, run.spec(), run.val_set, run.fabric) if due else None
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
                save_checkpoint(run.folder.best, run.judged, run.spec(scores))
            _save(run, scores)
    return scores


def _row(run: Run, scores: SegmentationScores | None) -> Row:
    done = run.progress
    epoch = done.step / steps_per_epoch(len(run.train_set), run.plan.batch_size)
    loss = done.loss_sum / done.loss_steps
    miou, accuracy = (scores.miou, scores.pixel_accuracy) if scores else (None, None)
    return Row(done.step, round(epoch, 3), run.plan.rate_at(done.step - 1), loss, miou, accuracy, round(done.seconds, 2))


def _save(run: Run, scores: SegmentationScores | None) -> None:
    """The last checkpoint, the tables and, when all of them are there, the state that counts on them."""
    save_checkpoint(run.folder.last, run.judged, run.spec(scores))
    run.folder.write_rows(run.rows)
    draw_curve(run.folder.curve, run.rows)
    average = run.average.state_dict() if run.average is not None else None
    scaler = run.fabric.strategy.precision.state_dict()
    run.folder.save_state(run.plan, run.progress, run.rows, run.model.state_dict(), run.optimiser.state_dict(), average, scaler)


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
        except KeyboardInterrupt as stop:
            if run.fabric.is_global_zero:
                if not run.is_saved:
                    with interrupts_held():
                        _save(run, None)
                has_best = run.progress.best_miou >= 0
                best = f"; the best so far (mIoU {run.progress.best_miou:.3f}) is {run.folder.best}" if has_best else ""
                say(f"stopped at step {run.progress.step} of {run.plan.steps}; go on with the same command and --resume{best}")
            if isinstance(stop, StoppedTogether):
                disconnect(run.fabric)  # torchrun ends all when the first one leaves, which the first process may be saving at
            raise
