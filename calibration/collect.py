"""Running the model over images and showing every tensor of interest to its observer, one image at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dlv3deploy.calibration.observers import Observer, Range
from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import UserError

if TYPE_CHECKING:
    from onnx import ModelProto

INSTALL = "install dlv3deploy[onnxruntime]"


def collect_ranges(
    model: ModelProto, batches: Iterable[Batch], observers: Mapping[str, Observer]
) -> tuple[dict[str, Range], int]:
    """The range of every observed tensor over all batches, and how many images they held.

    `model` has its input fixed to the batches' shape. Memory is one image's activations, however many images there are.
    Raises UserError when there is no image.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("calibration", "runs the model with ONNX Runtime, which is not installed", INSTALL) from error

    watched = [name for name in observers if name != _input_name(model)]
    input_name, images = _input_name(model), 0
    with _named_errors():
        session = onnxruntime.InferenceSession(_with_outputs(model, watched), providers=["CPUExecutionProvider"])
    for batch in batches:
        images += len(batch)
        if input_name in observers:
            observers[input_name].collect(batch)
        with _named_errors():
            seen = session.run(watched, {input_name: batch})
        for name, values in zip(watched, seen, strict=True):
            observers[name].collect(values)
    if not images:
        raise UserError("no calibration image", "INT8 needs the ranges that real images cause", "give --images FOLDER")
    return {name: observer.compute() for name, observer in observers.items()}, images


@contextmanager
def _named_errors() -> Iterator[None]:
    """ONNX Runtime's complaints about the graph as a UserError."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            "the model to calibrate",
            f"cannot be run by ONNX Runtime ({reason[:200]})",
            "calibrate a float32 model of standard operators",
        ) from error


def _input_name(model: ModelProto) -> str:
    weights = {w.name for w in model.graph.initializer}
    name: str = next(i.name for i in model.graph.input if i.name not in weights)
    return name


def _with_outputs(model: ModelProto, names: list[str]) -> bytes:
    """The model with inner tensors as further outputs. Their type is float: only what convolutions read is watched."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {output.name for output in watched.graph.output}
    for name in names:
        if name not in present:
            watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    data: bytes = watched.SerializeToString()
    return data
