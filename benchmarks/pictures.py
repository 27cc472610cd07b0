"""Pictures without meaning, of VOC's size, for what is measured in time alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.images import write_frame

HEIGHT, WIDTH = 375, 500
GRAIN = 25  # pixels: smooth pictures compress and decode as photographs do, noise does not


def write_pictures(root: Path, train: int, val: int, classes: int) -> None:
    """A data set folder of JPEG pictures and PNG labels, the same every time."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            frame = _smooth(random.integers(0, 256, (HEIGHT // GRAIN, WIDTH // GRAIN, 3), np.uint8))
            label = np.kron(
                random.integers(0, classes, (HEIGHT // GRAIN, WIDTH // GRAIN), np.uint8), np.ones((GRAIN, GRAIN), np.uint8)
            )
            write_frame(root / split / "images" / f"{number:04}.jpg", frame)
            write_frame(root / split / "labels" / f"{number:04}.png", label)


def _smooth(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
