"""What the tests of calibration share: small graphs, running them, and arithmetic by loops to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tiny_models import HEIGHT, WIDTH, GraphWriter, tiny_deeplab, tiny_spec

from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.network import Conv, Network
from dlv3deploy.calibration.placement import place
from dlv3deploy.calibration.quantize import quantized, shared_ranges
from dlv3deploy.core.dilation import Window
from dlv3deploy.core.graph import embed_spec, fix_input, simplified

Map = NDArray[np.float32]
SIZE = 13, 17


@dataclass
class Graph(GraphWriter):
    """A GraphWriter of small maps that knows more operators."""

    size: tuple[int, int] = SIZE

    def constant(self, values: Any, kind: type = np.float32) -> str:
        return self.weight(f"constant{len(self.weights)}", np.asarray(values, kind))

    def relu6(self, given: str) -> str:
        return self.node("Clip", [given, self.constant(0), self.constant(6)], f"{given}.relu6")

    def network(self, output: str) -> Network:
        return Network.prepared(self.model(output, 17), *self.size)


def run(model: onnx.ModelProto, image: Map, *tensors: str) -> list[Map]:
    """The output, or these inner tensors, by ONNX Runtime as the graph is written."""
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors if name not in present
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[Map] = session.run(list(tensors) or [model.graph.output[0].name], {session.get_inputs()[0].name: image})
    return found


def quantized_deeplab() -> onnx.ModelProto:
    """A small DeepLabv3 with pairs where the recipe has them; their scales are guesses. It describes itself."""
    model = fix_input(simplified(tiny_deeplab()), (1, 3, HEIGHT, WIDTH))
    placement = place(model.graph)
    ranges = shared_ranges(placement, {tensor: Range(-1, 1) for tensor in placement.tensors})
    steps = {weight: np.asarray(0.01, np.float32) for weight in placement.weights.values()}
    result = quantized(model, placement, ranges, steps)
    embed_spec(result, tiny_spec())
    return result


def noise(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Callable[[], list[Map]]:
    """Every call gives the same images, as a pass over a folder does."""
    random = np.random.default_rng(seed)
    images = [random.standard_normal((1, 3, *size)).astype(np.float32) for _ in range(count)]
    return lambda: images


def conv_of(
    size: tuple[int, int],
    kernel: int = 3,
    rate: int = 1,
    stride: int = 1,
    pads: Sequence[int] | None = None,
    groups: int = 1,
) -> Conv:
    """A convolution without a graph; `pads` are top, left, bottom, right, by default those that keep the size."""
    top, left, bottom, right = pads if pads is not None else [rate * (kernel - 1) // 2] * 4
    rows = Window(size[0], kernel, rate, stride, top, bottom)
    columns = Window(size[1], kernel, rate, stride, left, right)
    return Conv("conv", "x", "y", "conv.weight", "conv.bias", groups, rows, columns)


def patches_of(image: Map, conv: Conv) -> NDArray[np.float64]:
    """im2col by loops: positions × channels × kernel × kernel, 0 where a tap reads padding."""
    rows, columns = conv.rows, conv.columns
    found = np.zeros((rows.outputs * columns.outputs, len(image), rows.kernel, columns.kernel))
    for y in range(rows.outputs):
        for x in range(columns.outputs):
            for i in range(rows.kernel):
                for j in range(columns.kernel):
                    down = y * rows.stride - rows.before + i * rows.rate
                    across = x * columns.stride - columns.before + j * columns.rate
                    if 0 <= down < rows.size and 0 <= across < columns.size:
                        found[y * columns.outputs + x, :, i, j] = image[:, down, across]
    return found


def convolved(image: Map, weight: Map, bias: Map, conv: Conv) -> NDArray[np.float64]:
    """C×H×W → out×h×w, group by group from `patches_of`."""
    patches, out = patches_of(image, conv), len(weight)
    inner = weight.shape[1]
    found = np.empty((out, len(patches)))
    for o in range(out):
        first = o * conv.groups // out * inner
        found[o] = (patches[:, first : first + inner] * weight[o]).sum(axis=(1, 2, 3)) + bias[o]
    return found.reshape(out, conv.rows.outputs, conv.columns.outputs)
