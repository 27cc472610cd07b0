"""What training does with batch norm: how its statistics begin, how fast they move, whether they stand still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
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

    def __init__(self, network: nn.Module) -> None:
        """`network`: with the weights and counters that its next step begins with."""
        self.momentum = {norm: norm.momentum for norm in norms(network) if norm.momentum and norm.running_mean is not None}
        # Counted here as well: reading a counter before every pass would wait for the GPU.
        self.seen = {norm: int(norm.num_batches_tracked or 0) for norm in self.momentum}

    @contextmanager
    def count_batch(self) -> Iterator[None]:
        """A batch passes in training mode inside of this.

        At the beginning a norm takes the batch's statistics whole, and is given back its share of the old ones afterwards. A
        momentum for each batch would be another program each for a compiled network; so it has two.
        """
        kept = dict[_BatchNorm, tuple[float, Tensor, Tensor]]()
        for norm, momentum in self.momentum.items():
            self.seen[norm] += 1
            old = self.seen[norm] / (self.seen[norm] + 1)
            if old < 1 - momentum:  # 1/(n + 1) is more
                kept[norm] = (old, _of(norm.running_mean).clone(), _of(norm.running_var).clone())
                norm.momentum = 1.0
        try:
            yield
        finally:
            for norm, (share, mean, variance) in kept.items():
                norm.momentum = self.momentum[norm]
                _of(norm.running_mean).lerp_(mean, share)
                _of(norm.running_var).lerp_(variance, share)


def _of(statistics: Tensor | None) -> Tensor:
    assert statistics is not None  # of a norm that keeps them
    return statistics
