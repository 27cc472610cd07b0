"""Layers one after another: each is rounded for what the INT8 network before it really passes on.

Rounding every layer as if its input were the float network's leaves the errors of different layers to add up. Here layer by
layer, the float network and the INT8 network as far as it is done run side by side on the same images. A layer reads x in the
one and x̂ in the other, and should still return w·x. With C = Cov(x̂) and D = Cov(x − x̂, x̂) the weights that come nearest,
before any rounding, are the least squares solution

    w* = w + w D (C + λI)⁻¹,

which are then rounded by C (`rounding.py`); the bias takes up what is left of the mean, b' = b + w·E[x] − ŵ·E[x̂]. This is
AdaRound's asymmetric reconstruction (Nagel et al. 2020, section 4.4) in closed form. Layers that do not depend on one another,
such as ASPP's branches, form a level. Both networks go from level to level once (`piecewise.py`), what they hold in between is
kept on disk. For large maps that is too much: levels before the first one whose tensors fit stay as `start` has them, rounded
one by one; little error has come together there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.choose import evenly
from dlv3deploy.calibration.int8_network import Batches, Quantisation
from dlv3deploy.calibration.network import Conv, Network
from dlv3deploy.calibration.patches import PatchMean, PatchMoments, from_blocks, positions_of, to_blocks
from dlv3deploy.calibration.piecewise import Walk, live_bytes
from dlv3deploy.calibration.quantize import dequantized_name
from dlv3deploy.calibration.rounding import usable
from dlv3deploy.calibration.weights import corrected_bias, rounded_weight

RIDGE = 0.3  # of the mean variance: how far sampled cross-covariances may pull weights
MOST_IMAGES = 32  # the time that a level takes grows with them
MOST_ON_DISK = 2 * 2**30  # bytes, for both networks and all images


@dataclass(frozen=True)
class Route:
    """The levels to go through, and the number of images to take along."""

    levels: list[list[Conv]]
    images: int

    @property
    def convs(self) -> frozenset[str]:
        return frozenset(conv.name for level in self.levels for conv in level)


def route(network: Network, convs: Sequence[Conv], images: int) -> Route:
    """As many levels and images as there is room for on disk: from an eighth of the image's size on at any rate, with fewer
    images if need be; earlier ones as far as they fit beside all of these."""
    all_levels = levels(network, convs)
    sizes = live_bytes(network, [[conv.input for conv in level] for level in all_levels])
    widest = [2 * max(sizes[begin:]) for begin in range(len(sizes))]  # for both networks
    height, width = network.shapes[network.input][2:]
    small = [all(c.rows.size < height / 8 + 1 and c.columns.size < width / 8 + 1 for c in level) for level in all_levels]
    latest = small.index(True) if True in small else 0
    taken = max(1, min(images, MOST_IMAGES, MOST_ON_DISK // widest[latest]))
    fitting = (begin for begin in range(latest) if taken * widest[begin] <= MOST_ON_DISK)
    return Route(all_levels[next(fitting, latest) :], taken)


def sequentially_rounded(start: Quantisation, batches: Batches, images: int, way: Route) -> Quantisation:
    """`start` with the weights and biases on the route found anew, in the graph's order; placement and ranges stay.

    `images` is the number of them in `batches`, one each.
    """
    plain, done = start.float_network, start
    positions, taken = positions_of(way.images), set(evenly(images, way.images))
    with TemporaryDirectory(prefix="dlv3deploy-") as folder:
        of_float = Walk(Path(folder, "float"), plain.model)
        of_int8 = Walk(Path(folder, "int8"), start.model(), exact=True)
        for number, batch in enumerate(batches()):
            if number in taken:
                of_float.put(batch)
                of_int8.put(batch)
        for level in way.levels:
            pairs = {conv.name: _Pair(conv, plain.weights[conv.weight], positions) for conv in level}
            tensors = list(dict.fromkeys(conv.input for conv in level))
            held = {name: dequantized_name(name) for name in tensors}
            walks = of_float.run(plain.model, tensors), of_int8.run(done.model(), list(held.values()))
            for wanted, found in zip(*walks, strict=True):
                for conv in level:
                    pairs[conv.name].collect(wanted[conv.input], found[held[conv.input]])
            done = _with_level(done, level, pairs)
    return done


def levels(network: Network, convs: Sequence[Conv]) -> list[list[Conv]]:
    """Convolutions by the number of `convs` on the longest way to them."""
    depth: dict[str, int] = {network.input: 0}
    ours = {conv.name for conv in convs}
    found: dict[int, list[Conv]] = {}
    by_name = {conv.name: conv for conv in convs}
    for node in network.nodes:
        before = max((depth.get(name, 0) for name in node.input), default=0)
        if node.name in ours:
            found.setdefault(before, []).append(by_name[node.name])
            before += 1
        depth.update(dict.fromkeys(node.output, before))
    return [found[place] for place in sorted(found)]


class _Pair:
    """What one convolution reads in both networks, at the same positions."""

    def __init__(self, conv: Conv, weight: NDArray[np.float32], positions: int) -> None:
        self.moments = PatchMoments(conv, weight, positions)
        self.mean, self.mean_on_grid = PatchMean(conv), PatchMean(conv)

    def collect(self, wanted: NDArray[Any], found: NDArray[Any]) -> None:
        self.moments.collect_pair(found, wanted - found)
        self.mean.collect(wanted)
        self.mean_on_grid.collect(found)


def _with_level(done: Quantisation, level: Sequence[Conv], pairs: dict[str, _Pair]) -> Quantisation:
    plain, changed, steps = done.float_network.weights, dict[str, NDArray[Any]](), dict(done.weight_steps)
    for conv in level:
        pair, weight = pairs[conv.name], plain[conv.weight]
        patches, cross = pair.moments.compute(), pair.moments.cross_covariance()
        rounded = rounded_weight(
            from_blocks(_pulled(to_blocks(weight, conv), patches.covariance, cross), weight, conv),
            conv,
            done.method.grid,
            patches.covariance,
        )
        means = pair.mean.compute(), pair.mean_on_grid.compute()
        changed[conv.weight], steps[conv.weight] = rounded.values, rounded.steps
        changed[conv.bias] = corrected_bias(plain[conv.bias], weight, rounded.values, conv, *means)
    return replace(done, network=done.network.with_weights(changed), weight_steps=steps)


def _pulled(weight: NDArray[np.float32], covariance: NDArray[np.float32], cross: NDArray[np.float32]) -> NDArray[np.float32]:
    """w + w D (C + λI)⁻¹, blocks B×R×K; `cross` is w D. Blocks of which C says nothing stay as they are."""
    held, variance = usable(covariance)
    ridge = np.where(variance > 0, variance * RIDGE, 1.0)[:, None, None] * np.eye(covariance.shape[1])
    wanted = np.where(variance[:, None, None] > 0, cross, 0)
    pull = np.linalg.solve(held + ridge, wanted.transpose(0, 2, 1).astype(np.float64))
    return np.asarray(weight + pull.transpose(0, 2, 1), np.float32)
