"""The steps of a fine-tuning run: data, loss, updates and validations, as in training from a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dlv3deploy.core.datasets import Dataset, Sample
from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.metrics import SegmentationScores
from dlv3deploy.core.preprocess import geometry_of
from dlv3deploy.core.progress import say
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import InputSpec, ModelSpec
from dlv3deploy.train.augment import Augmentation
from dlv3deploy.train.curve import draw_curve
from dlv3deploy.train.interrupts import StepAbandoned, ignore_interrupts, interrupts_held
from dlv3deploy.train.loss import SegmentationLoss
from dlv3deploy.train.loss_choice import LossChoice
from dlv3deploy.train.meter import TrainingMeter
from dlv3deploy.train.quantized.engine import GraphEngine
from dlv3deploy.train.quantized.quantized_graph import QuantizedGraph
from dlv3deploy.train.quantized.settings import SCALES, FineTuning
from dlv3deploy.train.run_state import Progress, Row, RunFolder
from dlv3deploy.train.samples import AugmentedSamples, EpochBatches, Pair, collate, steps_per_epoch
from dlv3deploy.train.validation import counted

STEP_RATE = 0.25  # learning rate of the logarithms of steps, as a share of that of weights
ROWS_EVERY = 10  # steps between two rows of metrics.csv


@dataclass(frozen=True)
class Best:
    """The weights with the highest mIoU so far, after `step` updates."""

    state: dict[str, Tensor]
    step: int
    scores: SegmentationScores


class Learning:
    """One run on one device; `graph` moves there. `calibrated` are the scores before the first step, `best` those after any."""

    def __init__(
        self,
        graph: QuantizedGraph,
        spec: ModelSpec,
        train_set: Dataset,
        val_set: Dataset,
        settings: FineTuning,
        folder: RunFolder,
    ) -> None:
        self.spec, self.train_set, self.val_set, self.settings, self.folder = spec, train_set, val_set, settings, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.graph = graph.to(self.device)
        self.loss = SegmentationLoss(LossChoice(), spec.classes.ignore_index, None, spec.output.coordinates)
        self.optimiser = _optimiser(graph, settings.learning_rate)
        self.progress, self.rows = Progress(), list[Row]()
        self.best: Best | None = None
        self.calibrated = self._validate()
        say(f"calibrated: mIoU {self.calibrated.miou:.4f} on {self.calibrated.images} validation images")

    def run(self) -> bool:
        """Take all steps, or those before Ctrl-C; whether it came. Raises CheckFailed when the loss is not finite."""
        started, steps = time.monotonic(), self.settings.steps
        try:
            with TrainingMeter(steps, self.progress) as meter:
                for images, labels in self._batches():
                    with interrupts_held():
                        loss = self._update(images, labels)
                        self.progress.count(loss, time.monotonic() - started)
                    meter.update(self.progress, loss, self._settle())
        except StepAbandoned:
            raise
        except KeyboardInterrupt:
            if self.best is None:
                say("stopped before the first validation: nothing has changed")
                raise
            say(f"stopped at step {self.progress.step} of {steps}; the best so far is of step {self.best.step}")
            return True
        return False

    def _batches(self) -> Iterator[Pair]:
        """Raises UserError or OSError for a file that can no longer be read."""
        settings, crop = self.settings, (self.spec.input.height, self.spec.input.width)
        scale = settings.scale or natural_scales(self.train_set.samples[0], self.spec.input)
        augmentation = Augmentation(crop, scale, settings.flip)
        loader: DataLoader[Pair | Exception] = DataLoader(
            AugmentedSamples(self.train_set, augmentation, self.spec.input, settings.seed),
            batch_sampler=EpochBatches(self.train_set, settings.batch_size, settings.seed, 0, settings.steps),
            collate_fn=collate,
            num_workers=settings.workers,
            worker_init_fn=ignore_interrupts,
        )
        for part in loader:
            if isinstance(part, Exception):
                raise part
            yield part

    def _update(self, images: Tensor, labels: Tensor) -> float:
        step, rate = self.progress.step, self.settings.rate_at(self.progress.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.optimiser.zero_grad(set_to_none=True)
        labels = labels.to(self.device)
        labelled = (labels != self.spec.classes.ignore_index).sum().clamp(min=1)
        outputs = self.graph(images.to(self.device, memory_format=torch.channels_last))
        loss = self.loss(outputs, labels, labelled)
        torch.autograd.backward(loss)
        self.optimiser.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            given = self.settings.learning_rate
            raise CheckFailed(f"the loss is {value} at step {step}; lower --learning-rate (it is {given:g})")
        return value

    def _settle(self) -> SegmentationScores | None:
        """Do what this step is due for: a validation, a row of the table."""
        done = self.progress
        due = done.step % self.settings.validate_every == 0 or done.step == self.settings.steps
        scores = self._validate() if due else None
        with interrupts_held():
            if scores and (self.best is None or scores.miou > self.best.scores.miou):
                state = {name: tensor.detach().clone() for name, tensor in self.graph.state_dict().items()}
                self.best = Best(state, done.step, scores)
                done.best_miou, done.best_pixel_accuracy = scores.miou, scores.pixel_accuracy
            if scores or done.step % ROWS_EVERY == 0:
                self.rows.append(self._row(scores))
                done.loss_sum, done.loss_steps = 0.0, 0
            if scores:
                self.folder.write_rows(self.rows)
                draw_curve(self.folder.curve, self.rows)
        return scores

    def _row(self, scores: SegmentationScores | None) -> Row:
        done = self.progress
        epoch = done.step / steps_per_epoch(len(self.train_set), self.settings.batch_size)
        miou, accuracy = (scores.miou, scores.pixel_accuracy) if scores else (None, None)
        rate, loss = self.settings.rate_at(done.step - 1), done.loss_sum / done.loss_steps
        return Row(done.step, round(epoch, 3), rate, loss, miou, accuracy, round(done.seconds, 2))

    def _validate(self) -> SegmentationScores:
        segment = Segmenter(GraphEngine(self.graph, self.spec, self.device))
        return counted(segment, self.val_set.samples, self.val_set.classes).compute()


def _optimiser(graph: QuantizedGraph, rate: float) -> torch.optim.Optimizer:
    """AdamW without decay; `share` is what each group takes of the learning rate."""
    named = list(graph.named_parameters())
    steps, others = ([p for name, p in named if name.endswith("growth") is wanted] for wanted in (True, False))
    return torch.optim.AdamW(
        [{"params": others, "share": 1.0}, {"params": steps, "share": STEP_RATE}], lr=rate, weight_decay=0.0
    )


def natural_scales(sample: Sample, given: InputSpec) -> tuple[float, float]:
    """The augmentation's range around the size at which the model sees the data's pictures."""
    frame, _ = sample.read()
    seen = math.sqrt(math.prod(geometry_of(frame.shape[0], frame.shape[1], given).scale))
    return SCALES[0] * seen, SCALES[1] * seen
