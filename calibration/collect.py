"""Running a network over images and showing tensors to their observers, one image at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dlv3deploy.calibration.network import reads
from dlv3deploy.calibration.observers import Observers
from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import UserError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

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

    `given` are tensors to start from in place of the model's input (`run`). Graphs with Q/DQ pairs run as they are written, in
    float arithmetic on INT8 grids (`exact`), so that what is measured is the model and not the kernels of one machine.
    """

    def __init__(self, model: ModelProto, tensors: Sequence[str], exact: bool = False, given: Sequence[str] = ()) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError("calibration", "runs the model with ONNX Runtime, which is not installed", INSTALL) from error

        self.given, self.tensors = list(given) or [input_name(model)], list(tensors)
        self.watched = [name for name in self.tensors if name not in self.given]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait take no core from NumPy
        if exact:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = None
        if self.watched:  # the image alone needs no model
            with _named_errors():
                self.session = onnxruntime.InferenceSession(
                    _part(model, self.given, self.watched), options, providers=["CPUExecutionProvider"]
                )

    def __call__(self, batch: Batch) -> dict[str, NDArray[Any]]:
        return self.run({self.given[0]: batch})

    def run(self, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with _named_errors():
            seen = self.session.run(self.watched, dict(given)) if self.session else []
        found = {**given, **dict(zip(self.watched, seen, strict=True))}
        return {name: found[name] for name in self.tensors}

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.session = None


@contextmanager
def _named_errors() -> Iterator[None]:
    """ONNX Runtime's complaints about the graph as a UserError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if "Failed to allocate" in str(error):  # ONNX Runtime's words
            raise MemoryError(str(error)) from error
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


def _part(model: ModelProto, given: list[str], wanted: list[str]) -> bytes:
    """What leads from some tensors to others, as a model; those whose type is not known are float."""
    import onnx

    graph = model.graph
    known = {value.name: value for value in [*graph.input, *graph.output]}
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}

    def described(names: list[str]) -> list[Any]:
        of_kind = onnx.helper.make_tensor_value_info
        return [known.get(name) or of_kind(name, kinds.get(name, onnx.TensorProto.FLOAT), None) for name in names]

    nodes = nodes_between(graph.node, given, wanted)
    read = {name for node in nodes for name in reads(node)}
    constants = [weight for weight in graph.initializer if weight.name in read]
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    part.graph.CopyFrom(onnx.helper.make_graph(nodes, "part", described(given), described(wanted), constants))
    part.graph.sparse_initializer.extend(graph.sparse_initializer)
    data: bytes = part.SerializeToString()
    return data


def nodes_between(nodes: Sequence[NodeProto], given: Collection[str], wanted: Collection[str]) -> list[NodeProto]:
    """The nodes on the ways from `given` and constants to `wanted`, in their order."""
    start, needed, found = set(given), set(wanted) - set(given), list[Any]()
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(reads(node) - start)
            found.append(node)
    return found[::-1]
