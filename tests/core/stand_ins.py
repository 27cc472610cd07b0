"""Stand-ins and small builders of the core tests: an engine that answers what it is told, specs, graphs of one node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dlv3deploy.core.classes import Classes, anonymous_classes
from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs, check_batch
from dlv3deploy.core.spec import InputSpec, ModelSpec, OutputKind, OutputSpec

Size = tuple[int | None, int | None]


class StandInEngine(ClosingEngine):
    """In place of a network: `answer` makes the outputs from the batch."""

    name = "stand-in"

    def __init__(self, spec: ModelSpec, answer: Callable[[Batch], Outputs], size: Size, images: int | None = 1) -> None:
        self.spec, self.answer = spec, answer
        self.input_shape = (images, 3, *size)

    def infer(self, batch: Batch) -> Outputs:
        check_batch(self, batch)
        return self.answer(batch)


def raw_input(height: int, width: int, **settings: Any) -> InputSpec:
    """An input spec that leaves pixels as they are."""
    return InputSpec(height, width, **{"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), **settings})


def spec_with(classes: int | Classes, height: int, width: int, kind: OutputKind = "scores", **settings: Any) -> ModelSpec:
    known = anonymous_classes(classes) if isinstance(classes, int) else classes
    return ModelSpec(known, raw_input(height, width, **settings), OutputSpec(kind))


def graph_of(
    nodes: list[onnx.NodeProto],
    given: tuple[int | str | None, ...] | None = (1, 3, 8, 8),
    result: tuple[int | str | None, ...] | None = (1, 5, 8, 8),
    weights: dict[str, Any] | None = None,
    given_type: int = TensorProto.FLOAT,
    result_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model from `image` to `result`."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", given_type, given)],
        [helper.make_tensor_value_info("result", result_type, result)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def conv_graph(
    weight: tuple[int, ...] = (5, 3, 3, 3),
    given: tuple[int | str | None, ...] = (1, 3, 8, 8),
    result: tuple[int | str | None, ...] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """One convolution of ones."""
    node = helper.make_node("Conv", ["image", "weight"], ["result"], name="conv", **attributes)
    return graph_of([node], given, result or (given[0], weight[0], "height", "width"), {"weight": np.ones(weight, np.float32)})
