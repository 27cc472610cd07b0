"""ONNX files of other programs: what the command line says about them, and what is assumed where it says nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlv3deploy.core.classes import Classes, anonymous_classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import Port, embedded_spec, ports
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec, ModelSpec, OutputKind, OutputSpec, Triple

if TYPE_CHECKING:
    from onnx import ModelProto

DEFAULT_SIZE = 513  # the paper's, for a foreign model of dynamic size


@dataclass(frozen=True)
class Description:
    """What the options say of a model that does not describe itself; None where they are silent."""

    classes: Classes | None = None
    ignore_index: int | None = None
    mean: Triple | None = None
    std: Triple | None = None
    output: OutputKind | None = None

    @property
    def is_empty(self) -> bool:
        return self == Description()

    def completed_by(self, spec: ModelSpec) -> Description:
        """With what `spec` says where the options are silent."""
        given = spec.input
        return Description(
            self.classes or spec.classes,
            self.ignore_index,
            self.mean or given.mean,
            self.std or given.std,
            self.output or spec.output.kind,
        )


def spec_of(model: ModelProto, description: Description, where: str) -> ModelSpec:
    """The spec in the file, or one made from `description` and the graph's shapes; what was assumed is said on stderr.

    Raises UserError when a self-describing file is described again, or a description does not fit the graph.
    """
    embedded = embedded_spec(model, where)
    given, result = ports(model, where)
    if embedded is not None:
        if not description.is_empty:
            remedy = "leave out --classes, --ignore-index, --mean, --std and --output"
            if "calibration" in embedded.parents:
                remedy += ", or give them to `calibrate`, which puts them into the file"
            raise UserError(where, "describes itself", remedy)
        return embedded
    assumed: list[str] = []
    kind = description.output or _kind_of(given, result)
    if description.output is None:
        assumed.append(f"output {kind}")
    classes = _classes_for(kind, result, description, where)
    if description.classes is None:
        assumed.append(f"{len(classes)} classes without names")
    if silent := [name for name, value in (("mean", description.mean), ("std", description.std)) if value is None]:
        assumed.append(f"ImageNet's {' and '.join(silent)}")
    if description.std is not None and min(description.std) <= 0:
        raise UserError(f"std {description.std}", "pixels are divided by it", "give three numbers above 0")
    height, width = given.shape[2], given.shape[3]
    if height is None or width is None:
        assumed.append(f"{DEFAULT_SIZE}×{DEFAULT_SIZE} where the size may change")
    assumed += ["RGB", "stretched to the input's size"]
    say(f"{where} does not describe itself; assumed: {', '.join(assumed)}")
    return ModelSpec(
        classes=classes,
        input=InputSpec(
            height or DEFAULT_SIZE,
            width or DEFAULT_SIZE,
            dynamic_size=height is None or width is None,
            dynamic_batch=given.shape[0] is None,
            mean=description.mean or IMAGENET_MEAN,
            std=description.std or IMAGENET_STD,
        ),
        output=OutputSpec(kind),
    )


def _kind_of(given: Port, result: Port) -> OutputKind:
    """Three dimensions, or one channel of integers: a mask; the input's height and width: logits; otherwise scores."""
    if len(result.shape) == 3 or (result.is_integer and result.shape[1] in (1, None)):
        return "mask"
    return "logits" if result.shape[2:] == given.shape[2:] and None not in given.shape[2:] else "scores"


def _classes_for(kind: OutputKind, result: Port, description: Description, where: str) -> Classes:
    fits = len(result.shape) == 3 or result.shape[1] in (1, None) if kind == "mask" else len(result.shape) == 4
    if not fits:
        sizes = "×".join("?" if size is None else str(size) for size in result.shape)
        rule = "a mask is N×H×W or N×1×H×W" if kind == "mask" else f"{kind} are N×C×h×w"
        raise UserError(f"{where} with --output {kind}", f"it returns {sizes}, and {rule}", "leave --output out")
    channels = result.shape[1] if kind != "mask" else None
    classes = description.classes
    if classes is None:
        if channels is None:
            raise UserError(
                where, "does not say how many classes it has", "add --classes voc|camvid|cityscapes|ade20k|cocostuff|FILE"
            )
        classes = anonymous_classes(channels)
    if channels is not None and channels != len(classes):
        raise UserError(
            f"{where} with {len(classes)} classes",
            f"its output has {channels} channels",
            "give the --classes it was trained on",
        )
    return classes if description.ignore_index is None else replace(classes, ignore_index=description.ignore_index)
