"""Channels that a width multiplier leaves."""

from __future__ import annotations


def multiple_of_eight(channels: float) -> int:
    """The nearest multiple of 8, 8 at least, and never below 90 % of `channels`: the rule of both MobileNets."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
