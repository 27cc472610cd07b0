"""One graph that runs a float network and, beside each of its convolutions, that convolution in INT8 alone.

The second one reads the *float* input through its own grid and has the rounded weights and the corrected bias. So its output
shows the error that this layer makes by itself, without what earlier layers hand on, and one run shows it for all layers. A
third one reads the same and keeps its float weights: what the input's grid costs, and in the difference what the weights cost.
After `sequential`, weights and biases make good for what earlier layers hand on; alone, where nothing is handed on, that too
counts as error of the layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from dlv3deploy.calibration.network import Conv, Network

if TYPE_CHECKING:
    from onnx import ModelProto


def alone(conv: Conv) -> str:
    """The output of a convolution that is the only one in INT8, N×C×h×w."""
    return f"{conv.output}/alone"


def on_its_grid(conv: Conv) -> str:
    """The output of a float convolution that reads its input through the grid, N×C×h×w."""
    return f"{conv.output}/on_its_grid"


def channel_maxima(conv: Conv) -> str:
    """The largest magnitude of each channel of a convolution's input, N×C×1×1."""
    return f"{conv.input}/channel_maxima"


def side_by_side(plain: Network, rounded: Network, convs: Iterable[Conv], steps: Mapping[str, float]) -> ModelProto:
    """The float model `plain` with `alone`, `on_its_grid` and `channel_maxima` of each of `convs` as further tensors.

    `rounded` holds the weights and biases of the same convolutions as INT8 has them, `steps` the grids of their inputs.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(plain.model)
    graph, done = model.graph, set[str]()
    nodes = {node.name: node for node in plain.nodes}
    for conv in convs:
        held = f"{conv.input}/held"
        if conv.input not in done:
            done.add(conv.input)
            parts = [f"{conv.input}/{part}" for part in ("step", "zero", "integers", "magnitudes")]
            graph.initializer.append(numpy_helper.from_array(np.array(steps[conv.input], np.float32), parts[0]))
            graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), parts[1]))
            graph.node.append(helper.make_node("QuantizeLinear", [conv.input, *parts[:2]], [parts[2]]))
            graph.node.append(helper.make_node("DequantizeLinear", [parts[2], *parts[:2]], [held]))
            graph.node.append(helper.make_node("Abs", [conv.input], [parts[3]]))
            graph.node.append(helper.make_node("GlobalMaxPool", [parts[3]], [channel_maxima(conv)]))
        names = [f"{name}/rounded" for name in (conv.weight, conv.bias)]
        for name, source in zip(names, (conv.weight, conv.bias), strict=True):
            graph.initializer.append(numpy_helper.from_array(rounded.weights[source], name))
        for output, constants in ((alone(conv), names), (on_its_grid(conv), [conv.weight, conv.bias])):
            copy = onnx.NodeProto()
            copy.CopyFrom(nodes[conv.name])
            copy.name = output
            copy.input[:] = [held, *constants]
            copy.output[:] = [output]
            graph.node.append(copy)
    return model
