"""Cross-layer equalisation: factors per channel that make channels alike before one scale is laid over them.

One INT8 scale covers all channels of a tensor, so a channel that spans a hundredth of the tensor's range is left with one or
two steps. Factors s of the channel groups (`channels.py`) change ranges without changing the function: an activation's range a
becomes a·s, the weights that make it p·s, the weights that read it c/s. Making all three alike over the channels, in the sense
of least squares on logarithms, has the closed form

    log s = (Σ log c − Σ log p − Σ log a) / (number of terms)      per channel, each term centred over its tensor.

With one activation and one reader it is s = √(c / a); with p in place of a it is the rule of Nagel et al. 2019 (section 4.1,
equation 9) for weights with one scale per tensor. Weights with a scale per output channel absorb s_out themselves: then p drops
out, and so does c of depthwise convolutions.

c/s and a·s do not change when a network is multiplied by one factor here and divided there: two networks that compute the
same function with other factors become the same network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.channels import ChannelGroups, channel_groups, is_clip_at_zero
from dlv3deploy.calibration.network import Conv, Network

LARGEST_FACTOR = 2.0**20
SMALLEST_SHARE = 1e-6  # of the largest channel; a channel below it is dead and takes what its neighbours take on average
Factors = NDArray[np.float64]  # one per channel group


def factors_for(
    network: Network,
    groups: ChannelGroups,
    channel_ranges: Mapping[str, NDArray[np.float32]],
    tensors: Iterable[str],
    per_tensor_weights: bool = False,
) -> Factors:
    """The factor of each group, 1 where it is not free.

    `channel_ranges` holds the largest magnitude of every channel of the `tensors` that will be quantised.
    """
    total, count = np.zeros(len(groups.free)), np.zeros(len(groups.free))

    def add(labels: NDArray[np.intp], ranges: NDArray[np.floating], sign: int) -> None:
        values = np.asarray(ranges, np.float64)
        if labels.size < 2 or values.max(initial=0) <= 0:
            return
        alive = values > SMALLEST_SHARE * values.max()
        logs = np.log(values[alive])
        np.add.at(total, labels[alive], sign * (logs - logs.mean()))
        np.add.at(count, labels[alive], 1)

    for name in tensors:
        add(groups.labels[name], channel_ranges[name], -1)
    for conv in network.convs:
        weight = network.weights[conv.weight]
        depthwise = conv.groups > 1 and weight.shape[1] == 1
        if per_tensor_weights:
            add(groups.of_outputs(conv), _by_output(weight), -1)
        if per_tensor_weights or not depthwise:
            add(groups.of_inputs(conv), _by_input(weight, conv), +1)
    logs = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    logs -= _level(groups, logs)
    logs[~groups.free] = 0
    limit = np.log(LARGEST_FACTOR)
    return np.asarray(np.exp(np.clip(logs, -limit, limit)))


def equalised(network: Network, groups: ChannelGroups, factors: Factors) -> Network:
    """The same function, with every channel multiplied by its group's factor."""
    changed: dict[str, NDArray[Any]] = {}
    for conv in network.convs:
        to, by = factors[groups.of_outputs(conv)], 1 / factors[groups.of_inputs(conv)]
        weight = network.weights[conv.weight].astype(np.float64)
        per_output = by.reshape(conv.groups, -1)[np.arange(len(weight)) * conv.groups // len(weight)]
        changed[conv.weight] = weight * to[:, None, None, None] * per_output[:, :, None, None]
        changed[conv.bias] = network.weights[conv.bias] * to
    return _with_bounds(network.with_weights(changed), groups, factors)


def cross_layer_equalised(
    network: Network,
    channel_ranges: Mapping[str, NDArray[np.float32]],
    tensors: Iterable[str],
    per_tensor_weights: bool = False,
    through_clips: bool = False,
) -> tuple[Network, dict[str, NDArray[np.float64]]]:
    """The equalised network, and by which factors the channels of its tensors were multiplied."""
    groups = channel_groups(network, through_clips)
    factors = factors_for(network, groups, channel_ranges, tensors, per_tensor_weights)
    return equalised(network, groups, factors), {name: factors[labels] for name, labels in groups.labels.items()}


def _by_output(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.abs(weight).reshape(len(weight), -1).max(axis=1))


def _by_input(weight: NDArray[np.float32], conv: Conv) -> NDArray[np.float32]:
    """The largest magnitude among the weights that read each input channel."""
    grouped = np.abs(weight).reshape(conv.groups, -1, *weight.shape[1:])
    return np.asarray(grouped.max(axis=(1, 3, 4)).ravel())


def _level(groups: ChannelGroups, logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to subtract from each group so that factors are 1 on average over the channels that meet in a tensor.

    Where some of those are fixed, their own wish is the level: the free ones come to meet them.
    """
    level = np.zeros_like(logs)
    for labels in sorted(groups.labels.values(), key=len):
        fixed = labels[~groups.free[labels]]
        level[labels] = logs[fixed if 0 < fixed.size < labels.size else labels].mean()
    return level


def _with_bounds(network: Network, groups: ChannelGroups, factors: Factors) -> Network:
    """ReLU6 whose channels have factors becomes ReLU and a minimum with the bound times the factor."""
    import onnx
    from onnx import helper, numpy_helper

    scaled = {
        node.output[0]: factors[groups.labels[node.output[0]]]
        for node in network.nodes
        if is_clip_at_zero(network, node) and not np.all(factors[groups.labels[node.output[0]]] == 1)
    }
    if not scaled:
        return network
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    nodes = []
    for node in network.nodes:
        output = node.output[0]
        if output not in scaled:
            nodes.append(node)
            continue
        bound = (float(network.weights[node.input[2]]) * scaled[output]).astype(np.float32).reshape(1, -1, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(bound, f"{output}/bound"))
        nodes += [
            helper.make_node("Relu", [node.input[0]], [f"{output}/relu"], name=f"{node.name}/relu"),
            helper.make_node("Min", [f"{output}/relu", f"{output}/bound"], [output], name=node.name),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return Network(model)
