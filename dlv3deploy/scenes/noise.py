"""Noise that repeats without a seam: the grain of asphalt, plaster, leaves and clouds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Noise = NDArray[np.float32]


def tileable_noise(rng: np.random.Generator, size: int, roughness: float) -> Noise:
    """size×size, mean 0 and standard deviation 1; amplitude falls with frequency to the power `roughness` (0 is white)."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), np.float32))
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    frequency = np.sqrt(rows**2 + columns**2)
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(spectrum * frequency**-roughness, (size, size)).astype(np.float32)
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def sample(noise: Noise, columns: Noise, rows: Noise) -> Noise:
    """The tile, repeated without end, read at fractional positions below 32767 in size (OpenCV's limit)."""
    import cv2

    return np.asarray(cv2.remap(noise, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)
