"""What one pass of a network costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """`macs` are the multiply-accumulates of convolutions and linear layers, padding included; batch norm is left out."""

    parameters: int
    macs: int


def cost_of(network: nn.Module, height: int, width: int) -> Cost:
    """Parameters and MACs of `network` for one image N×3×height×width. Computes shapes alone where it is on `meta`."""
    macs = 0

    def count(layer: nn.Module, _given: object, result: Tensor) -> None:
        nonlocal macs
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        positions = result.shape[2] * result.shape[3] if isinstance(layer, nn.Conv2d) else 1
        macs += layer.weight.numel() * positions

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, height, width, device=next(network.parameters()).device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return Cost(sum(p.numel() for p in network.parameters()), macs)
