"""Atrous spatial pyramid pooling with batch norm and image pooling (paper, section 3.3), under torchvision's names."""

from __future__ import annotations

from torch import Tensor, cat, nn

DROPOUT = 0.5


class AtrousBranch(nn.Sequential):
    """A 3×3 convolution at one atrous rate, batch norm, ReLU."""

    def __init__(self, inputs: int, channels: int, rate: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, channels, 3, padding=rate, dilation=rate, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )


class ImagePooling(nn.Sequential):
    """The mean over the map, a 1×1 convolution, batch norm, ReLU; constant over the map, N×C×1×1 spread to N×C×h×w."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(inputs, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = x
        for layer in self:
            pooled = layer(pooled)
        return pooled.repeat(1, 1, x.shape[2], x.shape[3])


class ASPP(nn.Module):
    """One 1×1 branch, an atrous branch for each rate and image pooling, concatenated and projected to `channels`.

    N×inputs×h×w to N×channels×h×w. The paper's rates are (6, 12, 18) at output stride 16, doubled at 8.
    """

    def __init__(self, inputs: int, rates: tuple[int, ...], channels: int) -> None:
        super().__init__()
        pointwise = nn.Sequential(nn.Conv2d(inputs, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        branches = [AtrousBranch(inputs, channels, rate) for rate in rates]
        self.convs = nn.ModuleList([pointwise, *branches, ImagePooling(inputs, channels)])
        self.project = nn.Sequential(
            nn.Conv2d(len(self.convs) * channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout(DROPOUT),
        )

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.project(cat([branch(x) for branch in self.convs], dim=1))
        return projected
