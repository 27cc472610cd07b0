"""Dropout that does not depend on how a batch is spread over processes and gradient accumulation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpreadDropout(nn.Module):
    """Zeroes elements of N×C×h×w with the given probability in training, and scales the others by 1 / (1 − probability).

    The mask is drawn for the whole batch, from the one seed that all parts of it share, and each part takes the masks of its
    own images: so two processes that hold half of a batch each compute what one process computes.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.positions: Tensor | None = None  # no buffer: DDP would send the first process's to all others
        self.batch_size = 0

    def take_part(self, positions: Tensor, batch_size: int) -> None:
        """The next input holds the images at `positions` (N whole numbers) of a batch of `batch_size`."""
        self.positions, self.batch_size = positions, batch_size

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        if self.positions is None:
            kept = torch.rand(x.shape, device=x.device) >= self.probability
        else:
            kept = (torch.rand((self.batch_size, *x.shape[1:]), device=x.device) >= self.probability)[self.positions]
        return x * kept / (1 - self.probability)

    def extra_repr(self) -> str:
        return f"{self.probability}"


def share_dropout(network: nn.Module, positions: Tensor, batch_size: int) -> None:
    """Tell every dropout of `network` which images of the whole batch come next."""
    for module in network.modules():
        if isinstance(module, SpreadDropout):
            module.take_part(positions, batch_size)
