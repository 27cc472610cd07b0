"""AdaRound (Nagel et al. 2020, section 3.3): whether each weight is rounded down or up, learned by gradient descent.

Its objective here is the output's expected error Δw H Δwᵀ over all patches, where the paper takes batches of patches: the same
quadratic that `calibration/rounding.py` solves in closed form, with nothing left to chance. It is counted in errors of rounding
to nearest, a weight each, so that the regulariser weighs the same whatever a layer's values are. The paper's two refinements
(inputs from the layers that are quantised already, the activation inside the objective) change the quadratic, not its solver,
and are left out for both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.rounding import output_error, round_to_nearest

ZETA, GAMMA = 1.1, -0.1  # how far the sigmoid is stretched (equation 23)
BETAS = (20.0, 2.0)  # of the regulariser, from begin to end
WARM_UP = 0.2  # share of the iterations without regulariser
STRENGTH = 10.0  # λ of equation 21 in these units
RATE = 0.01
Blocks = NDArray[np.float32]


def adaround(weight: Blocks, steps: NDArray[np.float32], covariance: Blocks, largest: int, iterations: int) -> Blocks:
    """Values on the grid `steps` (B×R) times −largest … largest for weights B×R×K and covariances B×K×K of their patches."""
    import torch

    scale, hessian = torch.from_numpy(steps.copy())[:, :, None], torch.from_numpy(covariance)
    aim = torch.from_numpy(weight.copy())
    floor = torch.floor(aim / scale)
    share = ((aim / scale - floor).clamp(0.01, 0.99) - GAMMA) / (ZETA - GAMMA)
    up = torch.logit(share).requires_grad_()
    optimiser = torch.optim.Adam([up], RATE)
    nearest = output_error(weight, round_to_nearest(weight, steps, largest), covariance).sum()
    unit = weight.size / float(nearest) if nearest else 1.0

    def rounded(how: torch.Tensor) -> torch.Tensor:
        return (floor + how).clamp(-largest, largest) * scale

    for iteration in range(iterations):
        how = (torch.sigmoid(up) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
        delta = rounded(how) - aim
        loss = ((delta @ hessian) * delta).sum() * unit
        progress = (iteration / iterations - WARM_UP) / (1 - WARM_UP)
        if progress > 0:
            beta = BETAS[0] + (BETAS[1] - BETAS[0]) * progress
            loss = loss + STRENGTH * (1 - (2 * how - 1).abs() ** beta).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        optimiser.step()
    found: Blocks = rounded((up.detach() >= 0).float()).numpy()
    return found
