"""From a network, images and a method to the INT8 network: statistics in few passes over the images, then weights and biases.

Passes: channel ranges (only to equalise), histograms, and what convolutions read (only for bias correction and learned
rounding). A `Calibration` keeps what it has collected, so that several methods can be tried without looking at the images
again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.collect import observe
from dlv3deploy.calibration.equalise import cross_layer_equalised
from dlv3deploy.calibration.grid import Range, on_grid
from dlv3deploy.calibration.histogram import Histogram, Magnitudes
from dlv3deploy.calibration.int8_network import Batches, Quantisation
from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.network import Conv, Network
from dlv3deploy.calibration.observers import ChannelRange, Observer
from dlv3deploy.calibration.patches import PatchMean, PatchMoments, positions_of
from dlv3deploy.calibration.placement import Placement, place
from dlv3deploy.calibration.quantize import shared_ranges
from dlv3deploy.calibration.rounding import DAMPING_FOR_FLOAT_INPUTS
from dlv3deploy.calibration.sequential import route, sequentially_rounded
from dlv3deploy.calibration.thresholds import THRESHOLDS
from dlv3deploy.calibration.valid_taps import reads_per_position
from dlv3deploy.calibration.weights import RoundedWeight, WeightGrid, corrected_bias, rounded_weight


@dataclass
class Calibration:
    """One network and its images. `keep` names convolutions that stay in floating point."""

    network: Network
    batches: Batches
    keep: frozenset[str] = frozenset()
    pooling: bool = False
    _variants: dict[tuple[bool, bool, bool], Statistics] = field(default_factory=dict)

    @cached_property
    def placement(self) -> Placement:
        return place(self.network.model.graph, self.keep, self.pooling)

    def keeping(self, convs: Collection[str]) -> Calibration:
        """Another one, with these convolutions in floating point as well."""
        return Calibration(self.network, self.batches, self.keep | {*convs}, self.pooling)

    def quantise(self, method: Method) -> Quantisation:
        """Raises CheckFailed when activations are not finite, UserError when there is no image."""
        return self._statistics(method).quantise(method)

    @cached_property
    def _channel_ranges(self) -> dict[str, NDArray[np.float32]]:
        observers = {name: ChannelRange(name) for name in self.placement.tensors}
        observe(self.network.model, self.batches(), {name: [observer] for name, observer in observers.items()})
        return {name: observer.compute() for name, observer in observers.items()}

    def _statistics(self, method: Method) -> Statistics:
        variant = method.equalise, method.clips, method.grid.per_tensor and method.equalise
        if variant not in self._variants:
            network = self.network
            if method.equalise:
                network, _ = cross_layer_equalised(
                    network, self._channel_ranges, self.placement.tensors, method.grid.per_tensor, method.clips
                )
            placement = place(network.model.graph, self.keep, self.pooling)
            self._variants[variant] = Statistics(network, placement, self.batches)
        return self._variants[variant]


class Statistics:
    """What one network's tensors hold on the images, collected when first asked for, what methods share only once."""

    def __init__(self, network: Network, placement: Placement, batches: Batches) -> None:
        self.network, self.placement, self.batches = network, placement, batches
        self.convs = [conv for conv in network.convs if conv.name in placement.weights]
        self._histograms: dict[tuple[str, bool], Magnitudes] = {}  # by tensor, and whether positions are weighted
        self._patches = _WhatIsRead({}, {}, covariances=False)
        self.images = 0  # counted in the first pass

    def histograms(self, valid_taps: bool) -> dict[str, Magnitudes]:
        weights = {name: self._reads(name) if valid_taps else None for name in self.placement.tensors}
        keys = {name: (name, weight is not None) for name, weight in weights.items()}
        if missing := {name: Histogram(name, weights[name]) for name, key in keys.items() if key not in self._histograms}:
            self.images = observe(self.network.model, self.batches(), {name: [observer] for name, observer in missing.items()})
            self._histograms |= {keys[name]: observer.compute() for name, observer in missing.items()}
        return {name: self._histograms[key] for name, key in keys.items()}

    def _reads(self, tensor: str) -> NDArray[np.float64] | None:
        readers = [conv for conv in self.convs if conv.input == tensor]
        return reads_per_position(readers) if readers else None

    def ranges(self, method: Method) -> dict[str, Range]:
        """Thresholds by the method's observer; tensors that share a scale take the widest."""
        seen = self.histograms(method.valid_taps)
        threshold = THRESHOLDS[method.observer]
        found = {name: Range(m.low, m.high).within(threshold(m)) for name, m in seen.items()}
        return shared_ranges(self.placement, found)

    def quantise(self, method: Method) -> Quantisation:
        ranges = self.ranges(method)
        way = route(self.network, self.convs, self.images) if method.sequential else None
        alone = [conv for conv in self.convs if way is None or conv.name not in way.convs]
        read = self._what_is_read(alone, ranges, method) if method.bias else {}
        changed: dict[str, NDArray[Any]] = {}
        steps: dict[str, NDArray[np.float32]] = {}
        for conv in self.convs:
            weight, seen = self.network.weights[conv.weight], read.get(conv.name)
            rounded = seen.learned(method.grid) if seen and method.rounding else rounded_weight(weight, conv, method.grid)
            changed[conv.weight], steps[conv.weight] = rounded.values, rounded.steps
            if seen and method.bias:
                means = seen.mean.compute(), seen.mean_on_grid.compute()
                changed[conv.bias] = corrected_bias(self.network.weights[conv.bias], weight, rounded.values, conv, *means)
        network = self.network.with_weights(changed)
        result = Quantisation(network, self.network, self.placement, ranges, steps, method, self.histograms(method.valid_taps))
        return result if way is None else sequentially_rounded(result, self.batches, self.images, way)

    def _what_is_read(self, convs: Sequence[Conv], ranges: dict[str, Range], method: Method) -> dict[str, _Read]:
        """The latest are kept: methods that differ in what they make of them share a pass."""
        steps = {conv.name: ranges[conv.input].step() for conv in convs}
        if convs and not self._patches.serve(steps, method.rounding):
            positions = positions_of(self.images) if method.rounding else 0
            found = {conv.name: _Read(conv, self.network, steps[conv.name], positions) for conv in convs}
            observers: dict[str, list[Observer]] = {}
            for conv in convs:
                observers.setdefault(conv.input, []).append(found[conv.name])
            observe(self.network.model, self.batches(), observers)
            self._patches = _WhatIsRead(steps, found, method.rounding)
        return {conv.name: self._patches.found[conv.name] for conv in convs}


class _Read:
    """Shows the input of one convolution, as it is and on its grid, to observers of its patches."""

    def __init__(self, conv: Conv, network: Network, step: float, positions: int) -> None:
        self.conv, self.weight, self.step = conv, network.weights[conv.weight], step
        self.mean, self.mean_on_grid = PatchMean(conv), PatchMean(conv)
        self.patches = PatchMoments(conv, self.weight, positions) if positions else None

    def collect(self, values: NDArray[Any]) -> None:
        held = on_grid(values, self.step)
        self.mean.collect(values)
        self.mean_on_grid.collect(held)
        if self.patches:
            self.patches.collect(held)

    def learned(self, grid: WeightGrid) -> RoundedWeight:
        assert self.patches is not None  # collected for rounding
        covariance = self.patches.compute().covariance
        return rounded_weight(self.weight, self.conv, grid, covariance, DAMPING_FOR_FLOAT_INPUTS)


@dataclass(frozen=True)
class _WhatIsRead:
    """`found` by convolution, for inputs on grids of these `steps`."""

    steps: dict[str, float]
    found: dict[str, _Read]
    covariances: bool

    def serve(self, steps: dict[str, float], covariances: bool) -> bool:
        return steps.items() <= self.steps.items() and self.covariances >= covariances
