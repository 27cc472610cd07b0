"""What the weights score on held-out images while they are trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from lightning_fabric import Fabric

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.datasets import Dataset, Sample
from dlv3deploy.core.metrics import ConfusionMatrix, SegmentationScores
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.train.network.deeplabv3 import DeepLabV3
from dlv3deploy.train.torch_engine import TorchEngine


def validate(model: DeepLabV3, spec: ModelSpec, data: Dataset, fabric: Fabric) -> SegmentationScores:
    """Scores on every sample, each at its label's size; processes share the samples and add up their counts."""
    if fabric.world_size > 1:  # batch-norm statistics differ between processes; the first one's are saved
        buffers = {name: buffer.cpu() for name, buffer in model.named_buffers()}  # pickled, which a GPU's had better not be
        model.load_state_dict(fabric.broadcast(buffers), strict=False)
    was_training = model.training
    model.eval()
    segment = Segmenter(TorchEngine(model, spec), (spec.input.height, spec.input.width))
    matrix = counted(segment, data.samples[fabric.global_rank :: fabric.world_size], data.classes)
    model.train(was_training)
    counts = torch.from_numpy(matrix.counts).to(fabric.device)
    matrix.counts = fabric.all_reduce(counts, reduce_op="sum").cpu().numpy()
    return replace(matrix.compute(), images=len(data))


def counted(segment: Segmenter, samples: Iterable[Sample], classes: Classes) -> ConfusionMatrix:
    """Masks against labels, each at its label's size."""
    matrix = ConfusionMatrix(classes)
    for sample in samples:
        frame, label = sample.read()
        matrix.collect(segment(frame, label.shape), label)
    return matrix
