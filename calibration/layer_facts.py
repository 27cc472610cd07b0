"""What INT8 does to one convolution: where its error comes from and how large it is, alone and with all that came before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.fidelity import decibels
from dlv3deploy.calibration.int8_network import Quantisation
from dlv3deploy.calibration.network import Conv
from dlv3deploy.calibration.output_error import ErrorFacts, Map, OutputError
from dlv3deploy.core.dilation import ValidTaps


@dataclass(frozen=True)
class GridUse:
    """How well a convolution's input and weights fit their grids.

    Half of the input's channels stay within `typical_steps` of the grid's 127; `widest_channel` reaches furthest. The two
    ratios part the layer's own error: its output's power over that of the error which the input's grid causes, and the weights.
    """

    typical_steps: float
    widest_channel: int
    input_snr_db: float
    weights_snr_db: float


@dataclass(frozen=True)
class LayerFacts:
    """One convolution. Shares are 0 to 1. `alone` is the error when it is the only one in INT8, `accumulated` that of the INT8
    network at this place; `noise_share` how much of the error in the scores this layer makes, out of what all layers make one
    by one. `alone` and `grid` are None for a layer that stays in floating point."""

    name: str
    input: str
    kernel: tuple[int, int]
    atrous_rate: tuple[int, int]
    int8: bool
    macs_share: float
    valid_tap_share: float
    noise_share: float
    grid: GridUse | None
    alone: ErrorFacts | None
    accumulated: ErrorFacts

    @property
    def is_atrous(self) -> bool:
        """A rate above 1 on a kernel above 1×1: a rate on a 1×1 convolution does nothing."""
        return any(rate > 1 and size > 1 for rate, size in zip(self.atrous_rate, self.kernel, strict=True))


class LayerWatch:
    """Collects what one convolution's `LayerFacts` need."""

    def __init__(self, conv: Conv, quantisation: Quantisation) -> None:
        self.conv, self.quantisation = conv, quantisation
        self.int8 = conv.name in quantisation.placement.weights
        self.alone, self.accumulated = OutputError(conv), OutputError(conv)
        self.signal = self.input_noise = self.weights_noise = 0.0
        self.maxima: NDArray[np.float32] | None = None

    def collect_alone(self, wanted: Map, found: Map, on_its_grid: Map, maxima: Map) -> None:
        """The tensors of `side_by_side`; `maxima` are N×C×1×1, the largest magnitudes of the input's channels."""
        self.alone.collect(wanted, found)
        self.signal += _power(wanted)
        self.input_noise += _power(on_its_grid - wanted)
        self.weights_noise += _power(found - on_its_grid)
        here = maxima.max(axis=(0, 2, 3))
        self.maxima = here if self.maxima is None else np.maximum(self.maxima, here)

    def compute(self, noise_share: float) -> LayerFacts:
        conv, rows, columns = self.conv, self.conv.rows, self.conv.columns
        network = self.quantisation.float_network
        is_atrous = any(window.rate > 1 and window.kernel > 1 for window in (rows, columns))
        return LayerFacts(
            name=conv.name,
            input=conv.input,
            kernel=(rows.kernel, columns.kernel),
            atrous_rate=(rows.rate, columns.rate),
            int8=self.int8,
            macs_share=network.macs(conv) / max(1, sum(network.macs(each) for each in network.convs)),
            valid_tap_share=ValidTaps(rows, columns).share(),
            noise_share=noise_share,
            grid=self._grid_use(),
            alone=self.alone.compute(is_atrous) if self.int8 else None,
            accumulated=self.accumulated.compute(is_atrous),
        )

    def _grid_use(self) -> GridUse | None:
        if not self.int8 or self.maxima is None:
            return None
        step = self.quantisation.ranges[self.conv.input].step()
        ratios = decibels(self.signal, self.input_noise), decibels(self.signal, self.weights_noise)
        return GridUse(float(np.median(self.maxima)) / step, int(self.maxima.argmax()), *ratios)


def _power(values: Map) -> float:
    return float(np.square(values).sum(dtype=np.float64))
