"""`auto`: the method whose scores on images that it was not calibrated on are nearest to the float network's.

Cheap methods first, all of them from the same few statistics: every observer, on the network as it is and equalised. The best
of them goes on with layers rounded one after another, which nearly always wins; where it does not, bias correction is kept only
when it helps, and learned rounding on top of it. Equalisation through ReLU6, which adds operations to the graph, is tried only
where weights are coarse: fewer bits than 8, or one step for a whole tensor. Of weights with fewer bits, rounding to nearest
leaves so little that nothing tells one network from another; there all methods learn their rounding from the first on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from dlv3deploy.calibration.fidelity import Fidelity, Judge
from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.calibration.thresholds import THRESHOLDS
from dlv3deploy.calibration.weights import WeightGrid


@dataclass(frozen=True)
class Trial:
    method: Method
    fidelity: Fidelity
    seconds: float


def choose_method(
    calibration: Calibration,
    judge: Judge,
    grid: WeightGrid,
    time_budget_s: float | None = None,
    said: Callable[[str], None] = lambda _: None,
) -> list[Trial]:
    """All trials, the best first. With a time budget no trial begins after it is spent; the first one always runs."""
    started, trials, spent = time.monotonic(), list[Trial](), False

    def best() -> Trial:
        return min(trials, key=lambda trial: trial.fidelity.divergence)

    def run(methods: Iterable[Method]) -> None:
        nonlocal spent
        for method in methods:
            begun = time.monotonic()
            if spent:
                return
            if trials and time_budget_s is not None and begun - started >= time_budget_s:
                spent = True
                said(f"the time budget of {time_budget_s:g} s is spent: {method} and what would follow were not tried")
                return
            fidelity = judge(calibration.quantise(method).model())
            trials.append(Trial(method, fidelity, time.monotonic() - begun))

    run(_cheap(grid))
    chosen = best().method
    if chosen.observer != "min-max":  # whose extremes no weighting moves
        run([replace(chosen, valid_taps=True)])
    plain = best()
    run([replace(plain.method, bias=True, rounding=True, sequential=True)])
    if best() is plain:
        corrected = replace(plain.method, bias=True)
        parts = [replace(corrected, rounding=True), corrected]  # in one pass over the images
        run([method for method in parts if method != plain.method])
    return sorted(trials, key=lambda trial: trial.fidelity.divergence)


def _cheap(grid: WeightGrid) -> Iterator[Method]:
    has_few_bits = grid.bits < 8
    plain = Method(grid=grid, bias=has_few_bits, rounding=has_few_bits)
    networks = [plain, replace(plain, equalise=True)]
    if grid.is_coarse:
        networks.append(replace(plain, equalise=True, clips=True))
    for network in networks:
        for observer in THRESHOLDS:
            yield replace(network, observer=observer)
