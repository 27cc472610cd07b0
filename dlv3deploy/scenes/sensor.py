"""From the scene to a camera's picture: haze with distance, the lens, and the sensor's noise. Labels do not pass here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.scenes.canvas import FAR_M, Canvas
from dlv3deploy.scenes.look import Look
from dlv3deploy.scenes.noise import Noise

MIDDLE_GREY = 118.0
BAND_PX = 8192  # pixels that are worked on at once: their arrays stay in the cache


@dataclass(frozen=True)
class Sensor:
    """`grain` is the noise's standard deviation in grey levels; `vignette` is what brightness is multiplied by."""

    grain: float
    blur_px: float
    vignette: Noise  # H×W
    noise: Noise  # larger than H×W, standard deviation 1

    def expose(self, canvas: Canvas, look: Look, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The picture, H×W×3 uint8 BGR."""
        import cv2

        height, width = canvas.label.shape
        exposed = self.vignette * _exposure(canvas.frame)
        top, left = (int(rng.integers(1 + n - m)) for n, m in zip(self.noise.shape, (height, width), strict=True))
        noise = self.noise[top : top + height, left : left + width]
        added = np.stack((look.haze, np.full(3, self.grain, np.float32)))
        picture = np.asarray(cv2.GaussianBlur(canvas.frame, (3, 3), self.blur_px), np.uint8)
        step = max(1, BAND_PX // width)
        for rows in (slice(start, start + step) for start in range(0, height, step)):
            depth = canvas.depth[rows]
            clear = np.exp(depth * np.float32(-1 / look.haze_m))
            clear[depth >= FAR_M] = 1.0  # the sky has its haze already
            clear *= exposed[rows]
            light = picture[rows] * clear[:, :, None]
            light += np.stack((exposed[rows] - clear, noise[rows]), axis=-1) @ added
            picture[rows] = np.clip(light, 0, 255, out=light).astype(np.uint8)
        return picture


def _exposure(frame: NDArray[np.uint8]) -> np.float32:
    """What the automatic exposure multiplies by: half way (in stops) to the mean grey that it is set for."""
    factor = float((MIDDLE_GREY / max(1.0, float(frame[::4, ::4].mean()))) ** 0.5)
    return np.float32(min(1.45, max(0.8, factor)))


def sensor_of(rng: np.random.Generator, height: int, width: int) -> Sensor:
    gain, grain, corner = float(rng.uniform(0.9, 1.12)), float(rng.uniform(1.0, 3.0)), float(rng.uniform(0.05, 0.18))
    rows, columns = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    off_axis = (rows[:, None] ** 2 + columns[None, :] ** 2) / 2
    vignette = (gain * (1 - corner * off_axis)).astype(np.float32)
    noise = rng.standard_normal((height + 32, width + 32), np.float32)
    return Sensor(grain, float(rng.uniform(0.4, 0.7)), vignette, noise)
