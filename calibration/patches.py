"""What a convolution reads: the mean and the covariance of its input patches, padding included.

A patch is the vector of the in/groups · k · k input values under the kernel at one output position; taps that fall outside the
map read 0. For an atrous convolution those are many: at rate 18 on a 23×30 map most patches hold more padding than picture. The
moments of real patches therefore carry the border with them, where formulas on whole maps forget it.

For depthwise and grouped convolutions every group has moments of its own. Layers whose patches are longer than LONGEST keep one
covariance per tap instead of one over all: taps that lie a rate apart have little in common once their means are taken out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.network import Conv
from dlv3deploy.calibration.valid_taps import readings
from dlv3deploy.core.dilation import Window

LONGEST = 2304  # 256 channels of a 3×3 kernel; a covariance of 21 MB in float32
SAMPLES = 2**14  # patches of one convolution, drawn at random from all images; border positions come in their true share
FEWEST_POSITIONS = 64  # of an image
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Patches:
    """Moments in blocks B×K, B×K×K: B is the number of groups (or of taps for long patches), K the length of a patch."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float32]
    count: int


def positions_of(images: int) -> int:
    """How many positions to draw from each of so many images."""
    return max(FEWEST_POSITIONS, SAMPLES // images)


def blocks_of(weight: NDArray[np.float32], conv: Conv) -> tuple[int, ...]:
    """B, R, K: blocks, rows of weights in each, and their length."""
    out, inner, height, width = weight.shape
    if conv.groups == 1 and inner * height * width > LONGEST:
        return height * width, out, inner
    return conv.groups, out // conv.groups, inner * height * width


def to_blocks(weight: NDArray[np.float32], conv: Conv) -> NDArray[np.float32]:
    """Weights out×in×k×k as B×R×K."""
    blocks, rows, length = blocks_of(weight, conv)
    if blocks == conv.groups:
        return weight.reshape(blocks, rows, length)
    return np.ascontiguousarray(weight.reshape(rows, length, blocks).transpose(2, 0, 1))


def from_blocks(blocks: NDArray[np.float32], weight: NDArray[np.float32], conv: Conv) -> NDArray[np.float32]:
    """The inverse of `to_blocks`; `weight` gives the shape."""
    if len(blocks) == conv.groups:
        return blocks.reshape(weight.shape)
    return np.ascontiguousarray(blocks.transpose(1, 2, 0)).reshape(weight.shape)


class PatchMoments:
    """Collects the patches of one convolution at so many positions of each image; memory is that of one covariance.

    With pairs it also collects how the outputs that an error of the input causes go with the input.

    An image's patches are taken about their own mean, and the images' means about that of all before (Chan et al. 1979): where
    means are large beside deviations, float32 products of the values themselves would leave nothing of the covariance, and of
    constant values a matrix of rounding errors.
    """

    def __init__(self, conv: Conv, weight: NDArray[np.float32], positions: int = SAMPLES) -> None:
        self.positions = positions
        self.conv, self.kernel, self.weight = conv, weight.shape[2:], to_blocks(weight, conv)
        blocks, rows, length = self.weight.shape
        self.by_tap = blocks != conv.groups
        self.mean = np.zeros((blocks, length))
        self.products = np.zeros((blocks, length, length), np.float32)
        self.caused = np.zeros((blocks, rows))  # mean
        self.cross: NDArray[np.float32] | None = None
        self.count = 0
        self.random = np.random.default_rng(0)

    def collect(self, values: Map) -> None:
        """Add an input N×C×H×W, as the convolution reads it."""
        for image in values:
            self._add(self._patches(image, *self._positions()))

    def collect_pair(self, values: Map, errors: Map) -> None:
        """Add an input, and errors of the same shape that are taken at the same positions."""
        if self.cross is None:
            self.cross = np.zeros(self.weight.shape, np.float32)
        for image, error in zip(values, errors, strict=True):
            positions, before = self._positions(), self.count
            patches = self._add(self._patches(image, *positions))
            caused = self.weight @ self._patches(error, *positions)  # B×R×n
            with _overflow_seen_later():
                caused, self.caused = _about_means(caused, self.caused, before)
                self.cross += caused @ patches.transpose(0, 2, 1)

    def _positions(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        outputs = self.conv.rows.outputs, self.conv.columns.outputs
        return np.divmod(self.random.permutation(outputs[0] * outputs[1])[: self.positions], outputs[1])

    def _add(self, patches: Map) -> Map:
        """Returns what was added, about its mean."""
        number = patches.shape[2]
        with _overflow_seen_later():
            patches, self.mean = _about_means(patches, self.mean, self.count)
            if len(patches) == 1:
                self.products[0] += patches[0] @ patches[0].T
            else:
                self.products += patches @ patches.transpose(0, 2, 1)
        self.count += number
        return patches

    def _patches(self, image: Map, y: NDArray[np.intp], x: NDArray[np.intp]) -> Map:
        """B×K×n."""
        rows, columns = _places(self.conv.rows, y), _places(self.conv.columns, x)  # k×n
        inside = ((rows >= 0) & (rows < self.conv.rows.size))[:, None] & ((columns >= 0) & (columns < self.conv.columns.size))
        places = np.where(inside, rows[:, None] * self.conv.columns.size + columns, 0)  # k×k×n
        taps = np.take(image.reshape(len(image), -1), places.reshape(-1, y.size), axis=1)  # C×k²×n
        if not inside.all():
            taps *= inside.reshape(-1, y.size)
        if self.by_tap:
            return np.ascontiguousarray(taps.transpose(1, 0, 2))
        return taps.reshape(self.conv.groups, -1, y.size)

    def compute(self) -> Patches:
        if not self.count:
            raise ValueError(f"nothing was collected for {self.conv.name}")
        return Patches(self.mean, self.products / np.float32(self.count), self.count)

    def cross_covariance(self) -> NDArray[np.float32]:
        """Cov(w·error, patch), B×R×K: rows are outputs, columns the patch's values."""
        if self.cross is None:
            raise ValueError(f"no pair was collected for {self.conv.name}")
        return np.asarray(self.cross / np.float32(self.count), np.float32)


def _about_means(values: Map, mean: NDArray[np.float64], count: int) -> tuple[Map, NDArray[np.float64]]:
    """`values`, B×K×n, about their own mean, with one column more; and the mean of them and `count` others that had `mean`.

    Products of two such matrices are sums of products about the means of all: the further column is the distance of the two
    means, weighted by how many values stand on either side.
    """
    number = values.shape[2]
    own = values.mean(axis=2, dtype=np.float64)
    distance, total = own - mean, count + number
    between = distance * math.sqrt(count * number / total)
    columns = [values - own[:, :, None].astype(np.float32), between[:, :, None].astype(np.float32)]
    return np.concatenate(columns, axis=2), mean + distance * (number / total)


def _overflow_seen_later() -> np.errstate:
    """By `rounding.usable`, which takes covariances that are not finite for unknown."""
    return np.errstate(over="ignore", invalid="ignore")


def _places(window: Window, outputs: NDArray[np.intp]) -> NDArray[np.intp]:
    """The input position that every tap reads for each output, k×n; those outside the map are padding."""
    return outputs * window.stride - window.before + np.arange(window.kernel)[:, None] * window.rate


class PatchMean:
    """Collects the mean patch over every position of every image, C×k×k.

    With A the matrix that says which rows each tap reads and B the one of columns (`readings`), the sums are Aᵀ·x·B.
    """

    def __init__(self, conv: Conv) -> None:
        self.conv = conv
        self.down, self.across = readings(conv.rows).T.astype(np.float64), readings(conv.columns)
        self.sum = np.zeros((1, conv.rows.kernel, conv.columns.kernel))
        self.count = 0

    def collect(self, values: Map) -> None:
        self.sum = self.sum + (self.down @ (values @ self.across).astype(np.float64)).sum(axis=0)
        self.count += len(values) * self.conv.rows.outputs * self.conv.columns.outputs

    def compute(self) -> NDArray[np.float64]:
        if not self.count:
            raise ValueError(f"nothing was collected for {self.conv.name}")
        return self.sum / self.count
