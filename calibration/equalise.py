"""Cross-layer equalisation: factors per channel that make channels alike before one scale is laid over them.

One INT8 scale covers all channels of a tensor, so a channel that spans a hundredth of the tensor's range is left with one or
two steps. Factors s of the channel groups (`channels.py`) change ranges without changing the function: an activation's range a
becomes a·s, the weights that make it p·s, the weights that read it c/s. Making all of these alike over the channels of their
tensor is least squares on logarithms:

    minimise Σ over terms t, channels i of (log r_ti ± log s_i − m_t)²,    m_t the mean of the term's own channels.

With one activation and one reader that is s = √(c / a), up to a common factor; with p in place of a it is the rule of Nagel et
al. 2019 (section 4.1, equation 9) for weights with one scale per tensor. Weights with a scale per output channel absorb s_out
themselves: then p drops out, and so does c of depthwise convolutions. It is solved in rounds, because terms overlap in part
(ASPP's concatenation and its branches) and because factors on one side of a layer change which of its weights is the largest.

c/s and a·s do not change when a channel is multiplied by one factor here and divided there: two networks that compute the same
function with other factors become the same network, but for one factor per tensor, which its scale follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.channels import ChannelGroups, channel_groups, is_clip_at_zero
from dlv3deploy.calibration.network import Conv, Network

LARGEST_FACTOR = 2.0**20
SMALLEST_SHARE = 1e-6  # of the largest channel; a channel below it is dead and takes what its neighbours take on average
ROUNDS = 100
HALF = 0.5  # of the way in each round: both sides of a layer move at once
SETTLED = 0.003  # a round in which no factor changes by more is the last
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
    spans = {conv.name: _spans(network.weights[conv.weight], conv) for conv in network.convs}
    tensors = list(tensors)
    limit = np.log(LARGEST_FACTOR)
    logs = np.zeros(len(groups.free))
    for _ in range(ROUNDS):
        factors = np.exp(logs)
        terms = [_term(groups.labels[name], channel_ranges[name] * factors[groups.labels[name]], +1) for name in tensors]
        for conv in network.convs:
            span = spans[conv.name] * factors[groups.of_outputs(conv)].reshape(conv.groups, -1, 1)
            span = span / factors[groups.of_inputs(conv)].reshape(conv.groups, 1, -1)
            depthwise = conv.groups > 1 and span.shape[2] == 1
            if per_tensor_weights:
                terms.append(_term(groups.of_outputs(conv), span.max(axis=2).ravel(), +1))
            if per_tensor_weights or not depthwise:
                terms.append(_term(groups.of_inputs(conv), span.max(axis=1).ravel(), -1))
        step = _step([term for term in terms if term.alive.size], groups.free)
        logs = np.clip(logs + HALF * step, -limit, limit)
        if np.abs(step).max(initial=0) < SETTLED:
            break
    return np.asarray(np.exp(logs))


class _Term(NamedTuple):
    """The logarithms of one tensor's ranges over its channels that are `alive`: `sign` times the factors' come on top."""

    labels: NDArray[np.intp]
    alive: NDArray[np.intp]
    logs: NDArray[np.float64]
    sign: int


def _term(labels: NDArray[np.intp], ranges: NDArray[np.floating], sign: int) -> _Term:
    alive = ranges > SMALLEST_SHARE * ranges.max(initial=0)
    return _Term(labels, labels[alive], np.log(ranges[alive]), sign)


def _spans(weight: NDArray[np.float32], conv: Conv) -> NDArray[np.float64]:
    """The largest magnitude over the taps from each input to each output, groups×out×in."""
    largest = np.abs(weight).max(axis=(2, 3)).astype(np.float64)
    return np.asarray(largest.reshape(conv.groups, -1, weight.shape[1]))


def _step(terms: list[_Term], free: NDArray[np.bool_]) -> Factors:
    """By how much the logarithms of all groups' factors miss what their terms wish for on average."""
    total, count = np.zeros(len(free)), np.zeros(len(free))
    for term in terms:
        np.add.at(total, term.alive, term.sign * (term.logs.mean() - term.logs))
        np.add.at(count, term.alive, 1)
    step = np.where(free, total / np.maximum(count, 1), 0)
    return _levelled(step, count > 0, terms, free)


def _levelled(logs: Factors, known: NDArray[np.bool_], terms: list[_Term], free: NDArray[np.bool_]) -> Factors:
    """Groups that meet in tensors have a common factor to spare: it makes them 1 on average, unless one of them is fixed.

    Dead channels take the average of those that they meet.
    """
    part = np.arange(len(logs))
    while True:
        before = part.copy()
        for term in terms:
            part[term.labels] = part[term.labels].min()
        if np.array_equal(part, before):
            break
    level = _sums(part, logs * known) / np.maximum(_sums(part, known), 1)
    filled = np.where(known | ~free, logs, level[part])
    has_fixed = _sums(part, known & ~free) > 0
    return np.where(free & ~has_fixed[part], filled - level[part], filled)


def _sums(part: NDArray[np.intp], values: NDArray[Any]) -> Factors:
    return np.asarray(np.bincount(part, weights=values, minlength=len(part)), np.float64)


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


def _with_bounds(network: Network, groups: ChannelGroups, factors: Factors) -> Network:
    """ReLU6 whose channels have factors becomes ReLU and a minimum with the bound times the factor."""
    import onnx
    from onnx import helper, numpy_helper

    scaled = {
        node.output[0]: factors[groups.labels[node.output[0]]]
        for node in network.nodes
        if node.output[0] in groups.labels
        and is_clip_at_zero(network, node)
        and not np.all(factors[groups.labels[node.output[0]]] == 1)
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
        bound = (network.weights[node.input[2]].item() * scaled[output]).astype(np.float32).reshape(1, -1, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(bound, f"{output}/bound"))
        nodes += [
            helper.make_node("Relu", [node.input[0]], [f"{output}/relu"], name=f"{node.name}/relu"),
            helper.make_node("Min", [f"{output}/relu", f"{output}/bound"], [output], name=node.name),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return Network(model)
