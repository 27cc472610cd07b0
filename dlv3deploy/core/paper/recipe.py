"""What an experiment of the paper is: its trainings one after another, the inference, and the published figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dlv3deploy.core.spec import Architecture

DataName = Literal["voc-trainaug", "voc-trainval", "coco-voc"]
MeasuredOn = Literal["voc-val", "voc-test"]

UnitRates = tuple[int, int, int]  # of a block's three convolutions (section 3.2)
BATCH_NORM_MOMENTUM = 3e-4  # PyTorch's share of the new batch; the paper's decay is 1 − 3e-4 = 0.9997


@dataclass(frozen=True)
class Stage:
    """One training by the protocol of section 4.1; a later stage goes on with the weights of the one before.

    `data`: `voc-trainaug` (10,582 images), `voc-trainval` (2,913) or `coco-voc` (COCO's images that hold classes of VOC in
    regions above 1000 pixels; other classes are background). The learning rate falls by the poly rule. Images are scaled by a
    factor in `scale`, mirrored half of the time, cropped to `crop` pixels a side. Those that hold one of `repeat_classes` are
    taken twice. Logits, not labels, are brought to the other's size.
    """

    architecture: Architecture
    data: DataName = "voc-trainaug"
    learning_rate: float = 0.007
    steps: int = 30_000
    poly_power: float = 0.9
    batch_size: int = 16
    crop: int = 513
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    frozen_batch_norm: bool = False
    batch_norm_momentum: float = BATCH_NORM_MOMENTUM
    repeat_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inference:
    """How the trained weights are evaluated: class probabilities are averaged over scales and mirrored pictures."""

    output_stride: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @property
    def name(self) -> str:
        """`os-8-ms-flip`: output stride 8, multi-scale, mirrored as well."""
        return f"os-{self.output_stride}{'-ms' * (len(self.scales) > 1)}{'-flip' * self.flip}"


@dataclass(frozen=True)
class Recipe:
    """One figure of a table: `labels` stand in the table's columns, `published` is the paper's mIoU in percent.

    `note` says what the paper leaves open and was chosen here.
    """

    name: str
    labels: tuple[str, ...]
    stages: tuple[Stage, ...]
    inference: Inference
    published: float
    measured_on: MeasuredOn = "voc-val"
    note: str = ""

    @property
    def training_name(self) -> str:
        return training_name(self.stages)


def training_name(stages: Sequence[Stage]) -> str:
    """The folder of a training: recipes whose stages are the same share it, so that it is trained once.

    The name of the first n stages is that of the training which a longer one goes on from.
    """
    first = stages[0].architecture
    network = f"block{first.blocks}" if first.head == "cascade" else "-".join(map(str, ("aspp", *first.aspp_rates)))
    pooling = "-pooling" if first.head == "aspp" and first.image_pooling else ""
    grid = "-".join(map(str, first.multi_grid or ()))
    trained_on = "-".join(stage.data.removeprefix("voc-").removesuffix("-voc") for stage in stages)
    return f"{first.backbone}-{network}{pooling}-mg-{grid}-os-{first.output_stride}-{trained_on}"
