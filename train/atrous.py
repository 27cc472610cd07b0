"""What replaces a stride: from a wanted output stride to the stride and the atrous rates of every stage.

Paper, section 3.1: where the features have reached the wanted output stride, further strides become 1 and the convolutions
behind them take an atrous rate instead, so that each still sees what it saw before.
"""

from __future__ import annotations

from typing import NamedTuple

from dlv3deploy.core.errors import UserError

OUTPUT_STRIDES = (8, 16, 32)


class StageRates(NamedTuple):
    """One stage: its stride, the atrous rate of the convolution that has the stride, and of the later ones."""

    stride: int
    first_rate: int
    later_rate: int


def stage_rates(strides: tuple[int, ...], stem_stride: int, output_stride: int) -> list[StageRates]:
    """The plan for stages of the given native strides behind a stem of `stem_stride`.

    Where a stride is replaced, the convolution that had it keeps the rate that reached it, and those after it take the new one
    (as torchvision and TensorFlow's DeepLab do). Raises UserError for an output stride other than 8, 16 or 32.
    """
    check_output_stride(output_stride)
    reached, rate, plan = stem_stride, 1, []
    for stride in strides:
        if reached * stride > output_stride:
            plan.append(StageRates(1, rate, rate * stride))
            rate *= stride
        else:
            plan.append(StageRates(stride, rate, rate))
            reached *= stride
    return plan


def check_output_stride(output_stride: int) -> None:
    """Raise UserError unless the network can be built with this output stride."""
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(f"output stride {output_stride}", "is none of 8, 16, 32", "16 suits training, 8 is finer and slower")
