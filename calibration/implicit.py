"""For those who stay with implicit INT8 in TensorRT 8 and 10: the same grids as a calibration cache, beside a graph without
pairs.

The cache belongs to the graph that is written with it, not to the float model: equalisation has changed the ranges of its
channels, and its weights and biases are the rounded and corrected ones. Without a scale TensorRT computes a tensor's neighbours
in floating point, so what only a ReLU or a pooling reads takes the scale of what comes out of it. An addend that has no pair,
because its convolution and the Add become one kernel, takes the sum of the others' scales and the result's: a + b = c gives
|a| ≤ |b| + |c|, and what is cut off where an activation limits c is beyond that limit with b added, too.

A cache has no scales of weights. TensorRT gives each output channel the step of its largest weight. Where that is not at the
end of the grid here, as after learned rounding of some channels, and of most with one step for a whole tensor, weights are
rounded once more, to a finer grid than ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.trt_cache import Calibrator, rewrite_cache, write_cache
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.graph import load_onnx, save_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

JETPACK_6 = "10.3.0"  # whose TensorRT is the newest on Jetson Orin that still takes a cache
CALIBRATOR: Calibrator = "EntropyCalibration2"  # the class that trtexec and DLA ask for, whatever the ranges come from
CALIBRATION, CACHE = "dlv3deploy.calibration", "dlv3deploy.cache"  # keys of the graph's metadata
KEEPS_SCALE = {"Clip", "Identity", "MaxPool", "Relu"}


class Ranged(Protocol):
    """A network whose floats lie on grids, and the ranges of its activations."""

    @property
    def network(self) -> Network: ...

    @property
    def ranges(self) -> Mapping[str, Range]: ...


@dataclass(frozen=True)
class ImplicitFiles:
    """The graph and its cache, and what a calibration leaves there. `calibration` is the digest of its key; it and the cache's
    hash stand in the graph's metadata."""

    graph: Path
    cache: Path

    @classmethod
    def beside(cls, int8_path: Path) -> ImplicitFiles:
        return cls(int8_path.with_suffix(".implicit.onnx"), int8_path.with_suffix(".cache"))

    def write(self, quantisation: Ranged, calibration: str, trt_version: str = JETPACK_6) -> None:
        """For TensorRT `trt_version`. Raises UserError for one that has no implicit INT8."""
        write_cache(self.cache, tensor_scales(quantisation), CALIBRATOR, trt_version)
        self._write_graph(quantisation.network.model, calibration)

    def rewrite(self, quantisation: Ranged, calibration: str) -> None:
        """Other scales and weights, for the TensorRT that the cache is for already."""
        rewrite_cache(self.cache, tensor_scales(quantisation))
        self._write_graph(quantisation.network.model, calibration)

    def are_of(self, calibration: str) -> bool:
        """Whether both are there and were written together for this calibration."""
        if not (self.graph.is_file() and self.cache.is_file()):
            return False
        try:
            told = {entry.key: entry.value for entry in load_onnx(self.graph).metadata_props}
        except UserError:
            return False  # damaged
        return told.get(CALIBRATION) == calibration and told.get(CACHE) == sha256_of(self.cache)

    def _write_graph(self, model: ModelProto, calibration: str) -> None:
        from onnx import ModelProto

        told = ModelProto()
        told.CopyFrom(model)
        del told.metadata_props[:]
        told.metadata_props.add(key=CALIBRATION, value=calibration)
        told.metadata_props.add(key=CACHE, value=sha256_of(self.cache))
        save_onnx(self.graph, told)


def is_implicit_graph(model: ModelProto) -> bool:
    """Whether `ImplicitFiles` wrote it."""
    return any(entry.key == CALIBRATION for entry in model.metadata_props)


def tensor_scales(quantisation: Ranged) -> dict[str, float]:
    """The step of every tensor that has a grid, and of what those tensors were activated or pooled from, in the graph's
    order."""
    network = quantisation.network
    steps = {name: found.step() for name, found in quantisation.ranges.items()}
    for node in reversed(network.nodes):
        alone = _read_by_one(network, node.input[0]) if node.input else False
        limits = node.op_type == "Min" and node.input[1] in network.weights  # ReLU6 with a bound for every channel
        if (node.op_type in KEEPS_SCALE or limits) and node.output[0] in steps and alone:
            steps.setdefault(node.input[0], steps[node.output[0]])
        if node.op_type == "Add" and node.output[0] in steps:
            bare = [name for name in node.input if name not in steps]
            if len(bare) == 1 and bare[0] in network.producers and _read_by_one(network, bare[0]):
                steps[bare[0]] = sum(steps[name] for name in (*node.input, node.output[0]) if name in steps)
    order = {name: place for place, name in enumerate([network.input, *(o for node in network.nodes for o in node.output)])}
    return dict(sorted(steps.items(), key=lambda entry: order[entry[0]]))


def _read_by_one(network: Network, tensor: str) -> bool:
    return len(network.consumers.get(tensor, ())) == 1
