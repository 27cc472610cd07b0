"""Change: what a rewrite did to one convolution."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """`node` is the convolution's name, `rewrite` what was done, `form` what came of it; multiply-accumulates before and after,
    padding included."""

    node: str
    rewrite: str
    form: str
    macs_before: int
    macs_after: int
