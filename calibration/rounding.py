"""Learned rounding: integers for a convolution's weights that keep its outputs, not its weights, close.

Rounding every weight to the nearest integer minimises |ΔW|². What matters is the output: with the covariance H of the patches
that the layer reads (`patches.py`, so the dilated ones with their padding), the expected squared error of output o is

    E (Δw_o · (x − mean))² = Δw_o H Δw_oᵀ,

and the mean part Δw_o · mean goes into the bias (`bias.py`). Minimising over integers is done in two steps:

1. Column by column, each rounding error is made good by the columns still open: w_open −= (w_j − q_j) / U_jj · U_j,open with
   the upper Cholesky factor U of H⁻¹ (Frantar et al. 2022, GPTQ, algorithm 1), most active columns first. 2. Coordinate descent
   on the same quadratic: an integer moves by −round((Δw H)_j / (H_jj · step)) as long as that helps. This is the objective of
   AdaRound (Nagel et al. 2020, equation 9) without its gradient descent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DAMPING = 0.01  # of the mean variance, added to the diagonal: sampled covariances are never exactly of full rank
BLOCK = 64
SWEEPS = 3
Blocks = NDArray[np.float32]  # B×R×K


def round_to_nearest(weight: Blocks, steps: NDArray[np.float32], largest: int) -> Blocks:
    """Values on the grid `steps` (B×R) times −largest … largest."""
    scale = steps[:, :, None]
    return np.asarray(np.clip(np.rint(weight / scale), -largest, largest) * scale, np.float32)


def learned_rounding(weight: Blocks, steps: NDArray[np.float32], covariance: Blocks, largest: int) -> Blocks:
    """Like `round_to_nearest`, with the smallest Δw H Δwᵀ that the two steps find; never worse than rounding to nearest."""
    hessian = _damped(covariance)
    nearest = round_to_nearest(weight, steps, largest)
    found = _descend(weight, _compensated(weight, steps, hessian, largest), steps, hessian, largest)
    worse = output_error(weight, found, hessian) > output_error(weight, nearest, hessian)
    return np.where(worse[:, :, None], nearest, found)


def output_error(weight: Blocks, rounded: Blocks, covariance: Blocks) -> NDArray[np.float32]:
    """Δw H Δwᵀ of every row, B×R: the variance of the output's error."""
    delta = rounded - weight
    return np.asarray(((delta @ covariance) * delta).sum(axis=2))


def _damped(covariance: Blocks) -> Blocks:
    size = covariance.shape[1]
    diagonal = np.einsum("bkk->bk", covariance).mean(axis=1)
    extra = np.where(diagonal > 0, diagonal * DAMPING, 1.0)
    return np.asarray(covariance + extra[:, None, None] * np.eye(size, dtype=np.float32), np.float32)


def _compensated(weight: Blocks, steps: NDArray[np.float32], hessian: Blocks, largest: int) -> Blocks:
    order = np.argsort(-np.einsum("bkk->bk", hessian), axis=1, kind="stable")
    ordered = np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], 1), order[:, None, :], 2)
    inverse = np.linalg.inv(ordered.astype(np.float64))
    upper = np.linalg.cholesky(inverse).transpose(0, 2, 1).astype(np.float32)  # UᵀU = H⁻¹
    left = np.take_along_axis(weight, order[:, None, :], 2).astype(np.float32)
    rounded = np.empty_like(left)
    size = left.shape[2]
    for start in range(0, size, BLOCK):
        stop = min(size, start + BLOCK)
        errors = np.empty((*left.shape[:2], stop - start), np.float32)
        for j in range(start, stop):
            column = left[:, :, j]
            rounded[:, :, j] = np.clip(np.rint(column / steps), -largest, largest) * steps
            error = (column - rounded[:, :, j]) / upper[:, j, j][:, None]
            left[:, :, j:stop] -= error[:, :, None] * upper[:, None, j, j:stop]
            errors[:, :, j - start] = error
        if stop < size:
            left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(rounded, back[:, None, :], 2)


def _descend(weight: Blocks, start: Blocks, steps: NDArray[np.float32], hessian: Blocks, largest: int) -> Blocks:
    integers = np.rint(start / steps[:, :, None])
    gradient = (integers * steps[:, :, None] - weight) @ hessian
    diagonal = np.einsum("bkk->bk", hessian)
    for _ in range(SWEEPS):
        moved = 0
        for j in range(weight.shape[2]):
            wanted = integers[:, :, j] - np.rint(gradient[:, :, j] / (diagonal[:, None, j] * steps))
            change = np.clip(wanted, -largest, largest) - integers[:, :, j]
            if not change.any():
                continue
            rows = np.flatnonzero(change.any(axis=0))
            moved += int(np.count_nonzero(change))
            integers[:, :, j] += change
            gradient[:, rows] += (change * steps)[:, rows, None] * hessian[:, None, j]
        if not moved:
            break
    return np.asarray(integers * steps[:, :, None], np.float32)
