"""Features: what every backbone returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """Maps N×C×h×w of one pass.

    `low` has output stride 4 and feeds DeepLabv3+'s decoder; `middle` feeds the auxiliary head and LR-ASPP; `high` is the last
    one, at the network's output stride.
    """

    low: Tensor
    middle: Tensor
    high: Tensor
