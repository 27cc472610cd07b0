"""What training does with batch norm: how its statistics begin, how fast they move, whether they stand still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

MANY = 1_000_000  # batches behind statistics that come without their number


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


def count_what_was_seen(network: nn.Module) -> None:
    """Statistics that were loaded from a file without counters, as old ones are, count as those of many batches."""
    for norm in norms(network):
        mean, seen = norm.running_mean, norm.num_batches_tracked
        if mean is not None and seen is not None and not seen and mean.any():
            seen.fill_(MANY)


class RunningStatistics:
    """The statistics of a network in training, which begin as the plain mean of what they were and of the batches seen.

    A new batch norm holds mean 0 and variance 1, and of those (1 − m)ⁿ is left after n batches of momentum m. Of MobileNetV3's
    0.01 that is a twentieth after 300 batches, as much as the whole variance of some of its channels: masks are noise until
    then. So the n-th batch counts 1/(n + 1) for as long as that is more than m; a thousandth is left of the beginning then.
    What was there counts as one batch, and not as none: while weights still move far in a step, the variance of a single
    batch is nothing to divide the next one by, and a hundred layers that each divide by too little end at infinity.
    """

    def __init__(self, network: nn.Module, compiled: bool = False) -> None:
        """`network`: with the weights and counters that its next step begins with."""
        self.momentum = {norm: norm.momentum for norm in norms(network) if norm.momentum}
        # Counted here as well: reading a counter before every pass would wait for the GPU.
        self.seen = {norm: int(norm.num_batches_tracked or 0) for norm in self.momentum}
        self.compiled = compiled

    def count_batch(self) -> AbstractContextManager[object]:
        """Say that a batch is about to pass in training mode, inside of what this returns.

        There a compiled network runs as it was before while momenta change, each of which would be another program to it.
        """
        for norm, momentum in self.momentum.items():
            self.seen[norm] += 1
            norm.momentum = max(momentum, 1 / (self.seen[norm] + 1))
        settled = all(norm.momentum == momentum for norm, momentum in self.momentum.items())
        return nullcontext() if settled or not self.compiled else torch.compiler.set_stance("force_eager")
