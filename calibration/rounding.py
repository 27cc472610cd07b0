"""Learned rounding: integers for a convolution's weights that keep its outputs, not its weights, close.

Rounding every weight to the nearest integer minimises |ΔW|². What matters is the output: with the covariance H of the patches
that the layer reads (`patches.py`, so the dilated ones with their padding), the expected squared error of output o is

    E (Δw_o · (x − mean))² = Δw_o H Δw_oᵀ,

and the mean part Δw_o · mean goes into the bias (`weights.py`). Where the covariance is the float network's, it lacks what INT8
layers before this one add to the input, above all in directions in which the input itself hardly varies; λI on top of H, the
damping, stands for it. With H = R Rᵀ, R upper triangular, the error is |Δw R|², whose column j depends on columns up to j only:

    (Δw R)_j = R_jj · (ŵ_j − w_j + Σ_{i<j} (ŵ_i − w_i) · R_ij / R_jj).

So columns are rounded one after another, the most active first, each to the integer nearest to w_j plus what the errors before
it ask for. This is GPTQ (Frantar et al. 2022, algorithm 1) in the form without an inverse (Chee et al. 2023, LDLQ).

AdaRound (Nagel et al. 2020) reaches the same quadratic by gradient descent, hundreds of times slower. `benchmarks/rounding.py`
compares the two: of 4-bit weights that are rounded without `sequential`, its integers can keep more of the masks than these do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# λ as a share of the mean variance.
DAMPING = 0.01  # of inputs as the INT8 network has them: what few samples say of directions without variance is chance
DAMPING_FOR_FLOAT_INPUTS = 0.1  # errors of the layers before are not in their covariance
BLOCK = 32
LEAST = 1e-30  # variance of patches; below that float32 loses it in products
Blocks = NDArray[np.float32]  # B×R×K


def round_to_nearest(weight: Blocks, steps: NDArray[np.float32], largest: int) -> Blocks:
    """Values on the grid `steps` (B×R) times −largest … largest."""
    scale = steps[:, :, None]
    return np.asarray(np.clip(np.rint(weight / scale), -largest, largest) * scale, np.float32)


def learned_rounding(
    weight: Blocks, steps: NDArray[np.float32], covariance: Blocks, largest: int, damping: float = DAMPING
) -> Blocks:
    """Like `round_to_nearest`, with a small Δw H Δwᵀ; never worse than rounding to nearest."""
    hessian = _damped(covariance, damping)
    nearest = round_to_nearest(weight, steps, largest)
    found = _compensated(weight, steps, hessian, largest)
    better = output_error(weight, found, hessian) <= output_error(weight, nearest, hessian)
    return np.where(better[:, :, None], found, nearest)


def output_error(weight: Blocks, rounded: Blocks, covariance: Blocks) -> NDArray[np.float32]:
    """Δw H Δwᵀ of every row, B×R: the variance of the output's error."""
    delta = rounded - weight
    return np.asarray(((delta @ covariance) * delta).sum(axis=2))


def usable(covariance: Blocks) -> tuple[Blocks, NDArray[np.float32]]:
    """The covariances and their mean variance, B; both 0 for blocks whose patches are constant, or of a size (beyond 10^±15)
    whose products float32 does not hold."""
    variance = np.einsum("bkk->bk", covariance).mean(axis=1)
    known = (variance > LEAST) & np.isfinite(covariance).all(axis=(1, 2))
    return np.where(known[:, None, None], covariance, np.float32(0)), np.where(known, variance, np.float32(0))


def _damped(covariance: Blocks, damping: float) -> Blocks:
    """Where nothing is known all directions count the same, and rounding to nearest is best."""
    held, variance = usable(covariance)
    extra = np.where(variance > 0, variance * damping, 1.0)
    return np.asarray(held + extra[:, None, None] * np.eye(covariance.shape[1], dtype=np.float32), np.float32)


def _compensated(weight: Blocks, steps: NDArray[np.float32], hessian: Blocks, largest: int) -> Blocks:
    """The columns in blocks so that most of the work is matrix products."""
    order = np.argsort(-np.einsum("bkk->bk", hessian), axis=1, kind="stable")
    ordered = np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], 1), order[:, None, :], 2)
    backwards = np.linalg.cholesky(ordered[:, ::-1, ::-1].astype(np.float64))
    upper = backwards[:, ::-1, ::-1].astype(np.float32)  # R: H = R Rᵀ
    feedback = upper / np.einsum("bkk->bk", upper)[:, None, :]
    wanted = np.take_along_axis(weight, order[:, None, :], 2)
    errors, rounded = np.zeros_like(wanted), np.empty_like(wanted)
    for start in range(0, wanted.shape[2], BLOCK):
        stop = min(wanted.shape[2], start + BLOCK)
        aims = wanted[:, :, start:stop] + errors[:, :, :start] @ feedback[:, :start, start:stop]
        for j in range(start, stop):
            aim = aims[:, :, j - start]
            if j > start:
                aim = aim + (errors[:, :, start:j] @ feedback[:, start:j, j, None])[:, :, 0]
            rounded[:, :, j] = np.clip(np.rint(aim / steps), -largest, largest) * steps
            errors[:, :, j] = wanted[:, :, j] - rounded[:, :, j]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(rounded, back[:, None, :], 2)
