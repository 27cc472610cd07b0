"""Running a network over images and showing tensors to their observers, one image at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dlv3deploy.calibration.network import read_inside
from dlv3deploy.calibration.observers import Observers
from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import UserError

if TYPE_CHECKING:
    from onnx import ModelProto

INSTALL = "install dlv3deploy[onnxruntime]"


def observe(model: ModelProto, batches: Iterable[Batch], observers: Observers) -> int:
    """Show every tensor of `observers` to its observers; returns the number of images.

    `model` has its input fixed to the batches' shape. Memory is that of one image's activations, however many images there are.
    Raises UserError when there is no image.
    """
    with Runner(model, list(observers)) as runner:
        images = 0
        for batch in batches:
            images += len(batch)
            for name, values in runner(batch).items():
                for observer in observers[name]:
                    observer.collect(values)
    if not images:
        raise UserError("no calibration image", "INT8 needs the ranges that real images cause", "give --images FOLDER")
    return images


class Runner:
    """A model whose inner tensors can be read: batch in, tensors by name out. Use it as a context manager.

    Graphs with Q/DQ pairs run as they are written, in float arithmetic on INT8 grids (`exact`), so that what is measured is the
    model and not the kernels of one machine.
    """

    def __init__(self, model: ModelProto, tensors: Sequence[str], exact: bool = False) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError("calibration", "runs the model with ONNX Runtime, which is not installed", INSTALL) from error

        self.input, self.tensors = input_name(model), list(tensors)
        self.watched = [name for name in self.tensors if name != self.input]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if exact:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = None
        if self.watched:  # the image alone needs no model
            with _named_errors():
                self.session = onnxruntime.InferenceSession(
                    _with_outputs(model, self.watched), options, providers=["CPUExecutionProvider"]
                )

    def __call__(self, batch: Batch) -> dict[str, NDArray[Any]]:
        with _named_errors():
            seen = self.session.run(self.watched, {self.input: batch}) if self.session else []
        found = dict(zip(self.watched, seen, strict=True))
        return {name: batch if name == self.input else found[name] for name in self.tensors}

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.session = None


@contextmanager
def _named_errors() -> Iterator[None]:
    """ONNX Runtime's complaints about the graph as a UserError."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            "the model to calibrate",
            f"cannot be run by ONNX Runtime ({reason[:200]})",
            "calibrate a float32 model of standard operators, at a --size that it takes",
        ) from error


def input_name(model: ModelProto) -> str:
    weights = {w.name for w in model.graph.initializer}
    name: str = next(i.name for i in model.graph.input if i.name not in weights)
    return name


def _with_outputs(model: ModelProto, names: list[str]) -> bytes:
    """The part of the model that leads to these tensors, as its outputs; all are float but the model's own."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    own = {output.name: output for output in model.graph.output}
    floats = {name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names}
    del watched.graph.output[:]
    watched.graph.output.extend([own.get(name, floats[name]) for name in names])
    needed, nodes = set(names), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input, read_inside(node))
            nodes.append(node)
    del watched.graph.node[:]
    watched.graph.node.extend(reversed(nodes))
    data: bytes = watched.SerializeToString()
    return data
