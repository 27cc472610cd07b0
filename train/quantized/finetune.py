"""Fine-tuning of a calibrated INT8 graph: checked before and after, and the best of what was validated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dlv3deploy.core.datasets import Dataset
from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.metrics import SegmentationScores
from dlv3deploy.core.preprocess import preprocess
from dlv3deploy.core.spec import InputSpec, ModelSpec
from dlv3deploy.train.data_check import check_data
from dlv3deploy.train.devices import started_by_torchrun
from dlv3deploy.train.quantized.learning import Learning
from dlv3deploy.train.quantized.parity import check_nodes
from dlv3deploy.train.quantized.quantized_graph import QuantizedGraph
from dlv3deploy.train.quantized.settings import FineTuning
from dlv3deploy.train.run_state import RunFolder

if TYPE_CHECKING:
    from onnx import ModelProto

PARITY_IMAGES = 2


@dataclass(frozen=True)
class FineTuned:
    """`model` is the graph with what was learned after `steps` updates, the best of those validated.

    `activation_steps` holds the step of every activation's grid. `scores` and those that it began with, `calibrated`, are on
    the validation set, computed in torch. `stopped` says that Ctrl-C ended the run.
    """

    model: ModelProto
    activation_steps: dict[str, float]
    steps: int
    scores: SegmentationScores
    calibrated: SegmentationScores
    stopped: bool


def fine_tune(
    model: ModelProto, spec: ModelSpec, train_set: Dataset, val_set: Dataset, settings: FineTuning, folder: Path
) -> FineTuned:
    """Learn weights, biases and steps of a calibrated Q/DQ `model`, whose nodes and form stay.

    `folder` takes metrics, curve and what the data are. Ctrl-C ends the run with the best so far; before the first validation
    it leaves nothing, and KeyboardInterrupt goes on. Raises UserError for a graph that cannot be fine-tuned or data that do not
    fit, CheckFailed when torch and ONNX Runtime disagree about a node or the loss diverges.
    """
    _check_serves(spec)
    graph = QuantizedGraph(model)
    shown = _shown(val_set, spec.input)
    check_nodes(graph, model, shown)
    check_data(train_set, val_set, folder)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False):
        learning = Learning(graph, spec, train_set, val_set, settings, RunFolder(folder))
        stopped = learning.run()
    best = learning.best
    assert best is not None  # the last step was validated
    graph.load_state_dict(best.state)
    graph.cpu()
    tuned = graph.written_into(model)
    check_nodes(graph, tuned, shown)
    return FineTuned(tuned, graph.steps(), best.step, best.scores, learning.calibrated, stopped)


def _check_serves(spec: ModelSpec) -> None:
    if started_by_torchrun():
        raise UserError("--quantize under torchrun", "runs in one process", "start it without torchrun")
    if spec.output.kind == "mask":
        rule, remedy = "class ids have no gradient", "export with --output scores, and calibrate that"
        raise UserError("a model that returns masks", rule, remedy)
    if spec.output.shift:
        raise UserError(
            "scores that were trained at another output stride",
            "lie between the cells of this one, where labels are not compared",
            "export at the output stride of the training, or train the checkpoint on at this one first",
        )


def _shown(val_set: Dataset, given: InputSpec) -> list[Batch]:
    """A few images that the graph is compared on."""
    few = val_set.samples[:: max(1, len(val_set) // PARITY_IMAGES)][:PARITY_IMAGES]
    return [preprocess(sample.read()[0], given)[0] for sample in few]
