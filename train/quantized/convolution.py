"""The weights of one INT8 convolution as they are learned: how far they move, counted in steps of their grid.

A weight is its calibrated value plus a learned number of its channel's calibrated steps. A bias counts in what one such step is
worth at the end of the input's grid: a bias is a weight whose input is always there. So one learning rate suits channels of all
sizes, and networks that differ by factors between their layers, which compute the same, learn the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlv3deploy.train.quantized.fake_quantize import HIGH, Grid

Array = NDArray[np.float32]


class QuantizedWeights(nn.Module):
    """Weights C×(in/groups)×k×k and bias C with one step for each output channel, or one in all; integers up to `largest`."""

    calibrated_weight: Tensor
    calibrated_bias: Tensor
    worth: Tensor

    def __init__(self, weight: Array, bias: Array, steps: Array, input_step: float, largest: int = HIGH) -> None:
        super().__init__()
        per_channel = torch.from_numpy(steps.copy()).reshape(-1, 1, 1, 1)
        self.grid = Grid(per_channel, -largest, largest)
        self.register_buffer("calibrated_weight", torch.from_numpy(weight.copy()))
        self.register_buffer("calibrated_bias", torch.from_numpy(bias.copy()))
        self.register_buffer("worth", per_channel.flatten() * (HIGH * input_step))
        self.moved = nn.Parameter(torch.zeros_like(self.calibrated_weight))
        self.bias_moved = nn.Parameter(torch.zeros_like(self.calibrated_bias))

    @property
    def weight(self) -> Tensor:
        """On the grid."""
        on_grid: Tensor = self.grid(self.calibrated_weight + self.moved * self.grid.calibrated)
        return on_grid

    @property
    def bias(self) -> Tensor:
        return self.calibrated_bias + self.bias_moved * self.worth


def largest_integer(weights: Iterable[tuple[Array, Array]]) -> int:
    """The end of the grid that all weights, given with their steps, together use.

    127, or less where calibration simulated fewer bits.
    """
    used = (np.abs(np.rint(weight / steps.reshape(-1, 1, 1, 1))).max(initial=0) for weight, steps in weights)
    most: int = 2 ** int(max(used, default=HIGH)).bit_length() - 1
    return min(HIGH, most)
