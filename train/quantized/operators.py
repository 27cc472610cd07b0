"""What each ONNX operator computes, in torch: those that calibrated segmentation graphs hold, opsets 13 to 20.

Every function takes its node and the node's inputs (None where an optional one is left out). Shapes, sizes and axes are int64
tensors on the CPU, as constants are; images may come in batches although the graph was made for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from dlv3deploy.train.quantized.node import Node, not_known
from dlv3deploy.train.quantized.resize import resize

Inputs = Sequence[Tensor | None]
Operator = Callable[[Node, Inputs], Tensor]


def _given(inputs: Inputs, position: int) -> Tensor | None:
    return inputs[position] if position < len(inputs) else None


def _whole_numbers(values: Tensor) -> list[int]:
    return [int(value) for value in values.flatten().tolist()]


def _needed(inputs: Inputs, position: int = 0) -> Tensor:
    values = inputs[position]
    assert values is not None  # the checker has seen the file
    return values


def _padding(node: Node) -> tuple[int, int, int, int]:
    """Left, right, top, bottom."""
    node.require("auto_pad", "NOTSET", "VALID")
    top, left, bottom, right = node.settings.get("pads", (0, 0, 0, 0))
    return left, right, top, bottom


def _pair(node: Node, setting: str) -> tuple[int, int]:
    first, second = node.settings.get(setting, (1, 1))
    return first, second


def _conv(node: Node, inputs: Inputs) -> Tensor:
    x, weight = _needed(inputs), _needed(inputs, 1)
    left, right, top, bottom = _padding(node)
    if (left, top) != (right, bottom):
        x, left, top = functional.pad(x, (left, right, top, bottom)), 0, 0
    rates, strides, groups = _pair(node, "dilations"), _pair(node, "strides"), node.settings.get("group", 1)
    return functional.conv2d(x, weight, _given(inputs, 2), strides, (top, left), rates, groups)


def _max_pool(node: Node, inputs: Inputs) -> Tensor:
    node.require("ceil_mode", 0)
    x, padding = _needed(inputs), _padding(node)
    if any(padding):
        x = functional.pad(x, padding, value=-torch.inf)
    return functional.max_pool2d(x, node.settings["kernel_shape"], _pair(node, "strides"), 0, _pair(node, "dilations"))


def _average_pool(node: Node, inputs: Inputs) -> Tensor:
    node.require("ceil_mode", 0)
    node.require("dilations", [1, 1])
    x, padding, window = _needed(inputs), _padding(node), (node.settings["kernel_shape"], _pair(node, "strides"))
    means = functional.avg_pool2d(functional.pad(x, padding), *window)
    if node.settings.get("count_include_pad", 0) or not any(padding):
        return means
    return means / functional.avg_pool2d(functional.pad(torch.ones_like(x[:1, :1]), padding), *window)


def _global_average_pool(_: Node, inputs: Inputs) -> Tensor:
    return _needed(inputs).mean((2, 3), keepdim=True)


def _reduce_mean(node: Node, inputs: Inputs) -> Tensor:
    node.require("noop_with_empty_axes", 0)
    x, axes = _needed(inputs), _given(inputs, 1)
    over = node.settings.get("axes") or (_whole_numbers(axes) if axes is not None else list(range(x.ndim)))
    return x.mean(over, keepdim=bool(node.settings.get("keepdims", 1)))


def _clip(_: Node, inputs: Inputs) -> Tensor:
    x, low, high = _needed(inputs), *(None if b is None else float(b) for b in (_given(inputs, 1), _given(inputs, 2)))
    return x if low is None and high is None else x.clamp(low, high)


def _hard_sigmoid(node: Node, inputs: Inputs) -> Tensor:
    alpha, beta = float(node.settings.get("alpha", 0.2)), float(node.settings.get("beta", 0.5))
    return (_needed(inputs) * alpha + beta).clamp(0, 1)


def _concat(node: Node, inputs: Inputs) -> Tensor:
    return torch.cat([part for part in inputs if part is not None], node.settings["axis"])


def _expand(_: Node, inputs: Inputs) -> Tensor:
    x, shape = _needed(inputs), _whole_numbers(_needed(inputs, 1))
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))  # type: ignore[no-untyped-call]  # torch leaves it so


def _tile(_: Node, inputs: Inputs) -> Tensor:
    return _needed(inputs).tile(_whole_numbers(_needed(inputs, 1)))


def _constant_of_shape(node: Node, inputs: Inputs) -> Tensor:
    from onnx import numpy_helper

    shape, value = _whole_numbers(_needed(inputs)), node.settings.get("value")
    filling = torch.zeros(1) if value is None else torch.from_numpy(numpy_helper.to_array(value).copy())
    return filling.expand(shape)


def _shape(node: Node, inputs: Inputs) -> Tensor:
    sizes = _needed(inputs).shape[node.settings.get("start", 0) : node.settings.get("end")]
    return torch.tensor(sizes, dtype=torch.int64)


def _gather(node: Node, inputs: Inputs) -> Tensor:
    x, places, axis = _needed(inputs), _needed(inputs, 1), node.settings.get("axis", 0)
    picked = x.index_select(axis, (places.flatten() % x.shape[axis]).to(x.device))
    return picked.reshape((*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


def _slice(node: Node, inputs: Inputs) -> Tensor:
    x, starts, ends = _needed(inputs), _whole_numbers(_needed(inputs, 1)), _whole_numbers(_needed(inputs, 2))
    axes, steps = _given(inputs, 3), _given(inputs, 4)
    for number, axis in enumerate(range(len(starts)) if axes is None else _whole_numbers(axes)):
        step = 1 if steps is None else int(steps[number])
        if step < 1:
            raise not_known(node.kind, node.name, f"has step {step}")
        part = slice(starts[number], ends[number], step)
        x = x[(slice(None),) * (axis % x.ndim) + (part,)]
    return x


def _unsqueeze(_: Node, inputs: Inputs) -> Tensor:
    x, axes = _needed(inputs), _whole_numbers(_needed(inputs, 1))
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(_: Node, inputs: Inputs) -> Tensor:
    x, axes = _needed(inputs), _given(inputs, 1)
    return x.squeeze() if axes is None else x.squeeze(tuple(_whole_numbers(axes)))


def _constant(node: Node, _: Inputs) -> Tensor:
    from onnx import numpy_helper

    if "value" not in node.settings:
        raise not_known(node.kind, node.name, "holds no tensor")
    return torch.from_numpy(numpy_helper.to_array(node.settings["value"]).copy())


def _cast(node: Node, inputs: Inputs) -> Tensor:
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64}  # TensorProto's numbers
    node.require("to", *kinds)
    return _needed(inputs).to(kinds[node.settings["to"]])


def _of_one(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda _, inputs: function(_needed(inputs))


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda _, inputs: function(_needed(inputs), _needed(inputs, 1))


def _of_many(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda _, inputs: reduce(function, (part for part in inputs if part is not None))


def _divided(x: Tensor, by: Tensor) -> Tensor:
    return torch.div(x, by, rounding_mode=None if x.is_floating_point() else "trunc")


OPERATORS: dict[str, Operator] = {
    "Add": _of_two(torch.add),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Div": _of_two(_divided),
    "Expand": _expand,
    "Gather": _gather,
    "GlobalAveragePool": _global_average_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _of_one(functional.hardswish),
    "Identity": _of_one(lambda x: x),
    "Max": _of_many(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _of_many(torch.minimum),
    "Mul": _of_two(torch.mul),
    "ReduceMean": _reduce_mean,
    "Relu": _of_one(functional.relu),
    "Resize": resize,
    "Shape": _shape,
    "Sigmoid": _of_one(torch.sigmoid),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _of_two(torch.sub),
    "Tile": _tile,
    "Unsqueeze": _unsqueeze,
}
