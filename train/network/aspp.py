"""Atrous spatial pyramid pooling (paper, section 3.3), under torchvision's names, and DeepLabv2's for comparison."""

from __future__ import annotations

from torch import Tensor, cat, nn

from dlv3deploy.train.network.choices import DROPOUT
from dlv3deploy.train.network.dropout import SpreadDropout


def normalised(convolution: nn.Conv2d) -> list[nn.Module]:
    """A convolution without bias, batch norm, ReLU."""
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]


def _branch(inputs: int, channels: int, kernel: int, rate: int, batch_norm: bool) -> list[nn.Module]:
    """One branch; without batch norm the convolution has a bias, and an identity keeps the names in their places."""
    convolution = nn.Conv2d(inputs, channels, kernel, padding=rate * (kernel // 2), dilation=rate, bias=not batch_norm)
    return normalised(convolution) if batch_norm else [convolution, nn.Identity(), nn.ReLU(inplace=True)]


class ImagePooling(nn.Sequential):
    """The mean over the map, a 1×1 convolution, batch norm, ReLU; constant over the map, N×C×1×1 spread to N×C×h×w."""

    def __init__(self, inputs: int, channels: int, batch_norm: bool = True) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *_branch(inputs, channels, 1, 1, batch_norm))

    def forward(self, x: Tensor) -> Tensor:
        pooled = x
        for layer in self:
            pooled = layer(pooled)
        return pooled.repeat(1, 1, x.shape[2], x.shape[3])


class ASPP(nn.Module):
    """One 1×1 branch, an atrous branch for each rate and image pooling, concatenated and projected to `channels`.

    N×inputs×h×w to N×channels×h×w. The paper's rates are (6, 12, 18) at output stride 16, doubled at 8. Table 5 leaves image
    pooling out and adds a fourth rate, 24; without batch norm every convolution has a bias instead.
    """

    def __init__(
        self,
        inputs: int,
        rates: tuple[int, ...],
        channels: int,
        dropout: float = DROPOUT,
        batch_norm: bool = True,
        image_pooling: bool = True,
    ) -> None:
        super().__init__()
        branches = [nn.Sequential(*_branch(inputs, channels, 1, 1, batch_norm))]
        branches += [nn.Sequential(*_branch(inputs, channels, 3, rate, batch_norm)) for rate in rates]
        branches += [ImagePooling(inputs, channels, batch_norm)] if image_pooling else []
        self.convs = nn.ModuleList(branches)
        joined = len(branches) * channels
        self.project = nn.Sequential(*_branch(joined, channels, 1, 1, batch_norm), SpreadDropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.project(cat([branch(x) for branch in self.convs], dim=1))
        return projected


class SummedASPP(nn.Module):
    """DeepLabv2's: a 3×3 convolution to class scores for each rate, without batch norm, summed. N×inputs×h×w to N×classes×h×w.

    Chen et al. 2016, "DeepLab", section 3.3 (ASPP-L has the rates 6, 12, 18, 24).
    """

    def __init__(self, inputs: int, classes: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(inputs, classes, 3, padding=rate, dilation=rate) for rate in rates])

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (branch(x) for branch in self.convs)
        total: Tensor = first
        for scores in others:
            total = total + scores
        return total
