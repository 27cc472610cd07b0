"""What training does with batch norm: how fast its statistics move, whether they stand still, whether processes share them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def norms(network: nn.Module) -> Iterator[_BatchNorm]:
    """Every batch norm of `network`."""
    return (module for module in network.modules() if isinstance(module, _BatchNorm))


def set_momentum(network: nn.Module, momentum: float) -> None:
    """The share of each new batch in the running statistics; the paper's decay of 0.9997 is a momentum of 0.0003."""
    for norm in norms(network):
        norm.momentum = momentum


def freeze(network: nn.Module) -> None:
    """Let scale and shift learn no more (paper, section 4.1: batch norm is frozen for output stride 8)."""
    for norm in norms(network):
        norm.requires_grad_(False)


def hold_statistics(network: nn.Module) -> None:
    """Normalise with the running statistics, and leave them as they are; to be said again after every `train()`."""
    for norm in norms(network):
        norm.eval()
