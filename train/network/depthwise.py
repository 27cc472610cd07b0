"""Depthwise convolution, with a way around a wrong gradient of torch's."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DepthwiseConvolution(nn.Conv2d):
    """One k×k filter a channel, no bias, padded so that a stride of 1 keeps the map's size unless `padding` says otherwise.

    In bfloat16 and channels-last layout on a CPU, torch (2.13 with oneDNN) computes a wrong gradient of the weights of a
    depthwise convolution whose atrous rate is above 1: it is off by more than its own size, and reads memory that was never
    written. There the convolution is done in float32.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, rate: int = 1, padding: int | None = None) -> None:
        same = rate * (kernel - 1) // 2
        super().__init__(
            channels,
            channels,
            kernel,
            stride,
            same if padding is None else padding,
            dilation=rate,
            groups=channels,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.dilation == (1, 1) or x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())
