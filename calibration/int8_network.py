"""Quantisation: an INT8 network as calibration leaves it, before and after it is written as a graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.histogram import Magnitudes
from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.network import Conv, Network
from dlv3deploy.calibration.placement import Placement, place
from dlv3deploy.calibration.quantize import quantized
from dlv3deploy.core.engine import Batch

if TYPE_CHECKING:
    from onnx import ModelProto

Batches = Callable[[], Iterable[Batch]]  # every call begins a new pass over the images


@dataclass(frozen=True)
class Quantisation:
    """An INT8 network: floats that lie on grids, and the grids. `seen` are the histograms that the ranges come from.

    `float_network` is what was rounded: the same channel factors, so that inner tensors can be compared.
    """

    network: Network
    float_network: Network
    placement: Placement
    ranges: dict[str, Range]
    weight_steps: dict[str, NDArray[np.float32]]
    method: Method
    seen: dict[str, Magnitudes]

    @property
    def convs(self) -> list[Conv]:
        """What is INT8, in the graph's order."""
        return [conv for conv in self.network.convs if conv.name in self.placement.weights]

    def model(self) -> ModelProto:
        """The Q/DQ graph."""
        return quantized(self.network.model, self.placement, self.ranges, self.weight_steps)

    def keeping(self, float_convs: Collection[str]) -> Quantisation:
        """The same with these convolutions in floating point, their weights and biases as they were."""
        plain = self.float_network.weights
        restored = [name for conv in self.network.convs if conv.name in float_convs for name in (conv.weight, conv.bias)]
        network = self.network.with_weights({name: plain[name] for name in restored})
        placement = place(network.model.graph, {*self.placement.kept_float, *float_convs}, self.placement.pooling)
        ranges = {name: self.ranges[name] for name in placement.tensors}
        return replace(self, network=network, placement=placement, ranges=ranges)
