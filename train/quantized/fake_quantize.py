"""A grid whose step is learned: QuantizeLinear and DequantizeLinear as one operation that has gradients.

Forward it is what the pair computes: v = x / s, q = round(v) half to even, saturated to the grid's ends, times s. Backward
it is LSQ (Esser et al. 2020, "Learned step size quantization", equations 1 to 3): rounding is passed straight through, so

    ∂x̂/∂x = 1 inside the grid's ends, 0 beyond;    ∂x̂/∂s = q − v inside, q beyond.

The gradient of s is scaled by 1/√(N · Q), N the number of values that share the step and Q the largest integer (section 2.2 of
the paper). What is learned is the logarithm of a step over the calibrated one: a step stays positive, and one learning rate
suits steps of all sizes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

LOW, HIGH = -128, 127  # where QuantizeLinear saturates


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        result = torch.div(x, step).round_().clamp_(low, high).mul_(step)
        context.save_for_backward(x, step, result)
        context.ends = low, high
        return result

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        x, step, result = context.saved_tensors
        low, high = context.ends
        inside = (x >= low * step) & (x <= high * step)
        passed = gradient * inside
        of_step = None
        if context.needs_input_grad[1]:
            # (q − v) · s = x̂ − x inside, q · s = x̂ beyond
            moved = (gradient * result).sub_(passed * x)
            of_step = moved.sum_to_size(step.shape) / step
            of_step /= math.sqrt(x.numel() / step.numel() * high)
        return passed, of_step, None, None


def fake_quantize(x: Tensor, step: Tensor, low: int = LOW, high: int = HIGH) -> Tensor:
    """`x` on the grid low · step … high · step; `step` has one element, or is C×1×1×1 for weights C×…, all above 0."""
    result: Tensor = _FakeQuantize.apply(x, step, low, high)  # type: ignore[no-untyped-call]  # torch leaves it so
    return result


class Grid(nn.Module):
    """A learned step, for one tensor or for several that must share it."""

    calibrated: Tensor

    def __init__(self, step: Tensor, low: int = LOW, high: int = HIGH) -> None:
        super().__init__()
        self.register_buffer("calibrated", step)
        self.growth = nn.Parameter(torch.zeros_like(step))  # logarithm of the step over the calibrated one
        self.low, self.high = low, high

    @property
    def step(self) -> Tensor:
        return self.calibrated * self.growth.exp()

    def forward(self, x: Tensor) -> Tensor:
        return fake_quantize(x, self.step, self.low, self.high)
