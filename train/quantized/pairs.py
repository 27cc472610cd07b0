"""The Q/DQ pairs of a graph: which tensors go through one, which steps they take, and which of these are one step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.errors import UserError
from dlv3deploy.train.quantized.node import Node, not_known

Arrays = Mapping[str, NDArray[np.generic]]
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
PASSES_VALUES_ON = ("Concat", "MaxPool")  # what goes in comes out: a compiler wants one step on both sides


@dataclass(frozen=True)
class Pair:
    """`tensor` is an activation or an initializer; `step` names what holds its step or, per channel, its steps."""

    tensor: str
    step: str
    zero_point: str


def find_pairs(nodes: Sequence[Node], constants: Arrays) -> dict[str, Pair]:
    """Pairs by the name of the tensor between Q and DQ.

    Raises UserError where the file is not in the form that calibration writes: symmetric INT8, zero point 0, one step per
    tensor, for weights also one per output channel.
    """
    pairs = {}
    for node in nodes:
        if node.kind == QUANTIZE:
            pair = Pair(*node.inputs, *[""] * (3 - len(node.inputs)))
            steps, zero = constants.get(pair.step), constants.get(pair.zero_point)
            if steps is None or zero is None or zero.dtype != np.int8 or zero.any():
                raise not_known(node.kind, node.name, "is not symmetric INT8 with a constant step and zero point 0")
            pairs[node.output] = pair
            if steps.size > 1 and (node.inputs[0] not in constants or node.settings.get("axis", 1) != 0):
                raise not_known(node.kind, node.name, "has steps per channel of what is no weight")
        elif node.kind == DEQUANTIZE and (node.inputs[0] not in pairs or pairs[node.inputs[0]].step != node.inputs[1]):
            raise not_known(node.kind, node.name, "has no QuantizeLinear of the same step before it")
    if not pairs:
        raise UserError("this ONNX file", "has no Q/DQ pairs", "give the INT8 file that `calibrate` makes of it")
    return pairs


def shared_steps(nodes: Sequence[Node], pairs: Mapping[str, Pair], constants: Arrays) -> dict[str, str]:
    """For every step the one that stands for all that must stay equal to it: itself where it stands alone.

    Equal stay the steps around a Concat and a MaxPool that are equal to begin with.
    """
    inside = {pair.tensor: pair.step for pair in pairs.values()}
    read = {node.output: pairs[node.inputs[0]].tensor for node in nodes if node.kind == DEQUANTIZE}
    leader = {step: step for step in inside.values()}
    for node in nodes:
        if node.kind not in PASSES_VALUES_ON:
            continue
        around = (read.get(name, name) for name in (*node.inputs, node.output))
        _join(leader, (inside[name] for name in around if name in inside), constants)
    return leader


def _join(leader: dict[str, str], steps: Iterable[str], constants: Arrays) -> None:
    first: dict[bytes, str] = {}
    for step in steps:
        other = first.setdefault(constants[step].tobytes(), step)
        old, new = leader[step], leader[other]
        for name in [name for name, led_by in leader.items() if led_by == old]:
            leader[name] = new
