"""How often each position of a map is read by the valid taps of the convolutions that read it.

In front of a convolution of atrous rate r, positions less than r from an edge are not read by the taps that would have to stand
beyond it. Where r is small that is the border; where r is more than half the map it is the middle, which the centre tap alone
reads. A value that nobody reads need not be held by the grid. Statistics that count a position as often as it is read are those
of the products that the convolution forms. For rate 18 on 23×30 the counts are 1, 2 and 4.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.network import Conv
from dlv3deploy.core.dilation import Window


def reads_per_position(convs: Iterable[Conv]) -> NDArray[np.float64] | None:
    """H×W, the sum over all `convs`, which read the same map; None where every position counts alike."""
    total = sum((np.outer(_reads(conv.rows), _reads(conv.columns)) for conv in convs), start=np.zeros((1, 1)))
    return None if np.all(total == total.flat[0]) else total


def valid_taps_per_position(conv: Conv) -> NDArray[np.intp]:
    """H×W: how many taps read inside the map at each output position."""
    return np.outer(_valid_taps(conv.rows), _valid_taps(conv.columns))


def _valid_taps(window: Window) -> NDArray[np.intp]:
    found = np.zeros(window.outputs, np.intp)
    for tap in range(window.kernel):
        found[np.array(window.valid_range(tap), np.intp)] += 1
    return found


def readings(window: Window) -> NDArray[np.float32]:
    """size×k of ones and zeros: whether a tap reads an input position of one axis for any output."""
    found = np.zeros((window.size, window.kernel), np.float32)
    for tap in range(window.kernel):
        outputs = np.array(window.valid_range(tap), np.intp)
        found[outputs * window.stride - window.before + tap * window.rate, tap] = 1
    return found


def _reads(window: Window) -> NDArray[np.float64]:
    """For each input position of one axis the number of outputs and taps that read it."""
    return np.asarray(readings(window).sum(axis=1), np.float64)
