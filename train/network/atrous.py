"""What replaces a stride: from a wanted output stride to the stride and the atrous rates of every stage.

Paper, section 3.1: where the features have reached the wanted output stride, further strides become 1 and the convolutions
behind them take an atrous rate instead, so that each still sees what it saw before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from dlv3deploy.core.errors import UserError

FINEST = 8  # below it the first stages would need rates too, and memory grows out of reach
PAPER_RATES = (6, 12, 18)  # of ASPP at output stride 16 (section 3.3)


class StageRates(NamedTuple):
    """One stage: its stride, the atrous rate of the convolution that has the stride, and of the later ones."""

    stride: int
    first_rate: int
    later_rate: int


def stage_rates(strides: tuple[int, ...], stem_stride: int, output_stride: int) -> list[StageRates]:
    """The plan for stages of the given native strides behind a stem of `stem_stride`.

    Where a stride is replaced, the convolution that had it keeps the rate that reached it, and those after it take the new one
    (as torchvision and TensorFlow's DeepLab do): so the dense map holds the strided one. Raises UserError for an output stride
    that is no power of two from 8 to the network's native one.
    """
    check_output_stride(output_stride, stem_stride * math.prod(strides))
    reached, rate, plan = stem_stride, 1, []
    for stride in strides:
        if reached * stride > output_stride:
            plan.append(StageRates(1, rate, rate * stride))
            rate *= stride
        else:
            plan.append(StageRates(stride, rate, rate))
            reached *= stride
    return plan


def check_output_stride(output_stride: int, native: int) -> None:
    """Raise UserError unless a network of this `native` output stride can be built with `output_stride`."""
    possible = [FINEST << power for power in range(native.bit_length()) if FINEST << power <= native]
    if output_stride not in possible:
        names = ", ".join(map(str, possible))
        raise UserError(f"output stride {output_stride}", f"is none of {names}", "16 suits training, 8 is finer and slower")


def aspp_rates_at(output_stride: int) -> tuple[int, ...]:
    """The paper's ASPP rates: (6, 12, 18) at output stride 16, doubled at 8 (section 4.2), and so halved at 32."""
    return tuple(max(1, rate * 16 // max(1, output_stride)) for rate in PAPER_RATES)
