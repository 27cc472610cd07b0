"""How `train`'s options describe a network."""

from __future__ import annotations

from dlv3deploy.commands.options import parse_whole_numbers

DEFAULT_STRIDE = 16


def parse_aspp_rates(text: str | None, output_stride: int) -> tuple[int, ...]:
    """As given; the paper's by default; with `none` ASPP is a 1×1 convolution and image pooling, as in small edge models."""
    from dlv3deploy.train.network.atrous import aspp_rates_at

    if text == "none":
        return ()
    return parse_whole_numbers(text, "--aspp-rates", "6,12,18") or aspp_rates_at(output_stride)


def parse_multi_grid(text: str | None) -> tuple[int, int, int] | None:
    from dlv3deploy.core.errors import UserError

    numbers = parse_whole_numbers(text, "--multi-grid", "1,2,4")
    if numbers is None:
        return None
    if len(numbers) != 3:
        raise UserError(f"--multi-grid {text}", "is three unit rates", "the paper's best are 1,2,1 and 1,2,4")
    return numbers[0], numbers[1], numbers[2]
