"""For those who stay with implicit INT8 in TensorRT 8 and 10: the same grids as a calibration cache, beside a graph without
pairs.

The cache belongs to the graph that is written with it, not to the float model: equalisation has changed the ranges of its
channels, and its weights and biases are the rounded and corrected ones. Without a scale TensorRT computes a tensor's neighbours
in floating point, so what only a ReLU or a pooling reads takes the scale of what comes out of it. An addend that has no pair,
because its convolution and the Add become one kernel, takes the sum of the others' scales and the result's: a + b = c gives
|a| ≤ |b| + |c|, and what is cut off where an activation limits c is beyond that limit with b added, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.trt_cache import Calibrator, write_cache
from dlv3deploy.core.graph import save_onnx

JETPACK_6 = "10.3.0"  # whose TensorRT is the newest on Jetson Orin that still takes a cache
CALIBRATOR: Calibrator = "EntropyCalibration2"  # the class that trtexec and DLA ask for, whatever the ranges come from
KEEPS_SCALE = {"Clip", "Identity", "MaxPool", "Relu"}


class Ranged(Protocol):
    """A network whose floats lie on grids, and the ranges of its activations."""

    @property
    def network(self) -> Network: ...

    @property
    def ranges(self) -> Mapping[str, Range]: ...


def write_implicit(quantisation: Ranged, onnx_path: Path, cache_path: Path, trt_version: str = JETPACK_6) -> None:
    """Write the graph without Q/DQ pairs and the cache that TensorRT `trt_version` reads for it. Raises UserError for a version
    that has no implicit INT8."""
    write_cache(cache_path, tensor_scales(quantisation), CALIBRATOR, trt_version)
    save_onnx(onnx_path, quantisation.network.model)


def tensor_scales(quantisation: Ranged) -> dict[str, float]:
    """The step of every tensor that has a grid, and of what those tensors were activated or pooled from, in the graph's
    order."""
    network = quantisation.network
    steps = {name: found.step() for name, found in quantisation.ranges.items()}
    for node in reversed(network.nodes):
        alone = _read_by_one(network, node.input[0]) if node.input else False
        if node.op_type in KEEPS_SCALE and node.output[0] in steps and alone:
            steps.setdefault(node.input[0], steps[node.output[0]])
        if node.op_type == "Add" and node.output[0] in steps:
            bare = [name for name in node.input if name not in steps]
            if len(bare) == 1 and bare[0] in network.producers and _read_by_one(network, bare[0]):
                steps[bare[0]] = sum(steps[name] for name in (*node.input, node.output[0]) if name in steps)
    order = {name: place for place, name in enumerate([network.input, *(o for node in network.nodes for o in node.output)])}
    return dict(sorted(steps.items(), key=lambda entry: order[entry[0]]))


def _read_by_one(network: Network, tensor: str) -> bool:
    return len(network.consumers.get(tensor, ())) == 1
