"""ModelSpec: what a model is, in a form that travels inside every file the model is stored in.

It is the JSON text under `SPEC_KEY` in the header of a checkpoint (safetensors), in `metadata_props` of an ONNX file and in
the manifest of an engine, so that no command has to be told twice how to feed a network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError

SPEC_KEY = "dlv3deploy.spec"
SPEC_FORMAT = 1

ResizeRule = Literal["stretch", "letterbox"]
ColourOrder = Literal["rgb", "bgr"]
OutputKind = Literal["scores", "logits", "mask"]
Coordinates = Literal["half-pixel", "align-corners"]
HeadKind = Literal["aspp", "cascade", "deeplabv2", "lraspp"]
Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)  # 8-bit pixel units, red green blue
IMAGENET_STD: Triple = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Architecture:
    """The settings that, with the number of classes, rebuild the network (paper, sections 3.2 and 3.3).

    `head`: `aspp` (section 3.3), `cascade` (section 3.2: a classifier right behind the last block), `deeplabv2` (its summed
    ASPP) or `lraspp` (MobileNetV3's). `width` multiplies the channels of all backbones but MobileNetV3. `blocks`, 4 to 7,
    is a ResNet's last block.
    `multi_grid` holds the unit rates of the three 3×3 convolutions in each of blocks 4 to 7; None is torchvision's rule, by
    which the convolution that had the stride keeps the rate that reached it. `final_convolution` is the 3×3 convolution
    that torchvision has behind ASPP and the paper has not. `decoder` is DeepLabv3+'s. `early_padding` pads inverted residuals
    before their expansion, and the first convolution not at all, as some trained MobileNetV2 weights want it.
    """

    backbone: str
    output_stride: int = 16
    aspp_rates: tuple[int, ...] = (6, 12, 18)
    aspp_channels: int = 256
    auxiliary: bool = False
    head: HeadKind = "aspp"
    width: float = 1.0
    blocks: int = 4
    multi_grid: tuple[int, int, int] | None = None
    image_pooling: bool = True
    aspp_batch_norm: bool = True
    final_convolution: bool = True
    decoder: bool = False
    early_padding: bool = False

    def __str__(self) -> str:
        """The network in a few words, such as `DeepLabv3+ with resnet50, output stride 16, ASPP rates 6, 12, 18`."""
        kinds = {"cascade": f"cascade to block {self.blocks}", "deeplabv2": "DeepLabv2", "lraspp": "LR-ASPP"}
        name = kinds.get(self.head, "DeepLabv3+" if self.decoder else "DeepLabv3")
        width = "" if self.width == 1 else f" of width {self.width:g}"
        grid = f", multi-grid {', '.join(map(str, self.multi_grid))}" if self.multi_grid else ""
        rates = f", ASPP rates {', '.join(map(str, self.aspp_rates)) or 'none'}" if self.head in ("aspp", "deeplabv2") else ""
        return f"{name} with {self.backbone}{width}, output stride {self.output_stride}{grid}{rates}"

    def at_output_stride(self, output_stride: int) -> Architecture:
        """The same weights with a denser or coarser map: ASPP rates follow (paper, section 4.2: doubled from 16 to 8)."""
        rates = tuple(max(1, rate * self.output_stride // output_stride) for rate in self.aspp_rates)
        return replace(self, output_stride=output_stride, aspp_rates=rates)


@dataclass(frozen=True)
class InputSpec:
    """How a frame becomes the network's input, a float32 N×3×height×width batch.

    The frame is resized bilinearly (half-pixel centres) to height×width pixels, stretched or letterboxed, which leaves borders
    of the mean colour; then every channel is (pixel − mean) / std, with `mean` and `std` in 8-bit pixel units (0 to 255) in
    `colour_order`.
    """

    height: int
    width: int
    dynamic_size: bool = False
    dynamic_batch: bool = False
    resize: ResizeRule = "stretch"
    colour_order: ColourOrder = "rgb"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD


@dataclass(frozen=True)
class OutputSpec:
    """What the network returns: `scores` (N×C×h×w at feature resolution), `logits` (N×C×H×W) or `mask` (N×H×W ids).

    `coordinates` is the rule of the bilinear interpolation that takes scores to the input's size. `shift` is added to the
    positions from which scores are read, in score cells: see `at_output_stride`.
    """

    kind: OutputKind
    coordinates: Coordinates = "half-pixel"
    shift: float = 0.0

    def at_output_stride(self, trained: int, opened: int) -> OutputSpec:
        """Where the scores of a network lie that was trained at one output stride and is opened at another.

        Cell i of a convolutional map stands at pixel i · stride. The half-pixel rule reads it at i · stride + (stride − 1)/2,
        and the network learnt to answer for that place; at another stride the rule would read it elsewhere, by half of the
        difference of the strides. With aligned corners and sides of k · stride + 1, as in the paper, cells are read where they
        stand at every stride.
        """
        moved = 0.0 if self.coordinates == "align-corners" else (opened - trained) / (2 * opened)
        return replace(self, shift=self.shift * trained / opened + moved)


@dataclass(frozen=True)
class TrainingFacts:
    """Where the weights come from: the data set's folder, the steps taken and the best validation figures."""

    data: str
    steps: int
    miou: float | None = None
    pixel_accuracy: float | None = None


@dataclass(frozen=True)
class ModelSpec:
    """Everything a later step must know about a model; `parents` maps what it was made from to its sha256."""

    classes: Classes
    input: InputSpec
    output: OutputSpec
    architecture: Architecture | None = None
    training: TrainingFacts | None = None
    parents: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": SPEC_FORMAT,
            "classes": self.classes.to_json(),
            "input": asdict(self.input),
            "output": asdict(self.output),
            "architecture": asdict(self.architecture) if self.architecture else None,
            "training": asdict(self.training) if self.training else None,
            "parents": dict(self.parents),
        }

    def to_text(self) -> str:
        return json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str, where: str) -> ModelSpec:
        """The inverse of `to_text`. Raises UserError naming `where` when the text is no spec of this format."""
        try:
            data = json.loads(text, parse_constant=_no_number)
            if data["format"] != SPEC_FORMAT:
                raise UserError(
                    where,
                    f"holds a model description of format {data['format']}, this version reads {SPEC_FORMAT}",
                    "make the file again with this version",
                )
            return cls(
                classes=Classes.from_json(data["classes"], where),
                input=_input(data["input"]),
                output=_output(data["output"]),
                architecture=_architecture(data["architecture"]),
                training=_training(data["training"]),
                parents=_parents(data["parents"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
            raise UserError(
                where, f"holds a damaged model description ({error})", "make the file again from the step before it"
            ) from error

    def at_size(self, height: int, width: int) -> ModelSpec:
        return replace(self, input=replace(self.input, height=height, width=width))

    def made_from(self, **parents: str) -> ModelSpec:
        """This spec with the hashes of further parents noted."""
        return replace(self, parents={**self.parents, **parents})


def _input(data: dict[str, Any]) -> InputSpec:
    spec = InputSpec(**{**data, "mean": triple(data["mean"]), "std": triple(data["std"])})
    _check_types(spec, height=int, width=int, dynamic_size=bool, dynamic_batch=bool)
    _require(spec.resize, ResizeRule)
    _require(spec.colour_order, ColourOrder)
    if min(spec.height, spec.width) < 1 or min(spec.std) <= 0:
        raise ValueError(f"input {spec.height}×{spec.width}, std {spec.std}")
    return spec


def _output(data: dict[str, Any]) -> OutputSpec:
    spec = OutputSpec(**data)
    _require(spec.kind, OutputKind)
    _require(spec.coordinates, Coordinates)
    _check_types(spec, shift=int | float)
    if not math.isfinite(spec.shift):
        raise ValueError(f"shift {spec.shift}")
    return spec


def _architecture(data: dict[str, Any] | None) -> Architecture | None:
    if data is None:
        return None
    grid = data.get("multi_grid")
    spec = Architecture(
        **{**data, "aspp_rates": tuple(data["aspp_rates"]), "multi_grid": None if grid is None else tuple(grid)}
    )
    _check_types(spec, backbone=str, width=int | float, blocks=int)
    _check_types(spec, **dict.fromkeys(("auxiliary", "image_pooling", "aspp_batch_norm", "final_convolution"), bool))
    _check_types(spec, decoder=bool, early_padding=bool)
    _require(spec.head, HeadKind)
    numbers = (spec.output_stride, spec.aspp_channels, *spec.aspp_rates, *(spec.multi_grid or ()))
    if not all(type(n) is int and n > 0 for n in numbers) or not 0 < spec.width < math.inf:
        raise ValueError(f"output stride, ASPP channels, rates and width {(*numbers, spec.width)}")
    return spec


def _training(data: dict[str, Any] | None) -> TrainingFacts | None:
    if data is None:
        return None
    facts, share = TrainingFacts(**data), int | float | None
    _check_types(facts, data=str, steps=int, miou=share, pixel_accuracy=share)
    return facts


def _parents(data: dict[str, Any]) -> dict[str, str]:
    for name, digest in data.items():
        if not isinstance(digest, str):
            raise TypeError(f"parent {name} {digest!r}")
    return dict(data)


def _check_types(described: object, **kinds: Any) -> None:
    """Raise TypeError unless every named field has its type; a truth value is no number."""
    for name, kind in kinds.items():
        value = getattr(described, name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{name} {value!r}")


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _require(value: str, literal: Any) -> None:
    if value not in get_args(literal):
        raise ValueError(f"{value!r} is none of {', '.join(get_args(literal))}")


def triple(values: Any) -> Triple:
    """Three floats, from a list or from the `R,G,B` of the command line. Raises ValueError."""
    parts = values.split(",") if isinstance(values, str) else list(values)
    if len(parts) != 3:
        raise ValueError(f"{values!r} is not three numbers")
    numbers = float(parts[0]), float(parts[1]), float(parts[2])
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{values!r} is not three finite numbers")
    return numbers


def check_size(height: int, width: int, output_stride: int) -> None:
    """Raise UserError unless both sides suit the network.

    A side is a multiple of the output stride, or one more, as the paper's 513 = 32·16 + 1: then features lie on a regular
    grid over the image, and interpolation back to the input's size shifts nothing at the far border.
    """
    for name, side in (("height", height), ("width", width)):
        below = side // output_stride * output_stride
        if side >= output_stride and side - below in (0, 1):
            continue
        choices = [str(c) for c in (below, below + 1, below + output_stride) if c >= output_stride]
        raise UserError(
            f"{name} {side}",
            f"a side is a multiple of the output stride {output_stride}, or one more",
            f"use {' or '.join(choices)}",
        )
