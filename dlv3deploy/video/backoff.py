"""Backoff: how long to wait before the next attempt to reach what is away."""

from __future__ import annotations

import random

FIRST_S = 0.2
LONGEST_S = 10.0


class Backoff:
    """Each wait is about twice the one before it, up to `LONGEST_S`, and by chance between half of that and one and a half.

    So that a server that comes back is not met by all its clients at once.
    """

    def __init__(self) -> None:
        self._middle_s = FIRST_S

    def next_s(self) -> float:
        middle_s, self._middle_s = self._middle_s, min(2 * self._middle_s, LONGEST_S)
        return middle_s * random.uniform(0.5, 1.5)
