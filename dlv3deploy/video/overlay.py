"""The overlay for people: class colours over the frame, and a legend of what is in it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.frame_engine import Paint
from dlv3deploy.core.images import Frame, Mask, colours_of
from dlv3deploy.video.legend import Legend


class Overlay:
    """Call it with a frame (H×W×3 BGR uint8) and its mask (H×W class ids); it returns a new frame.

    Colours are blended in with `opacity`, 0 (the frame, no legend) to 1 (colours alone). Ids that are no class, and a class
    whose colour is black, as VOC's background, leave the frame as it is. Several threads may call it: they draw one after
    the other.
    """

    def __init__(self, classes: Classes, opacity: float = 0.5) -> None:
        if not 0 <= opacity <= 1:
            raise UserError(f"opacity {opacity}", "is a share from 0 (the frame) to 1 (the colours)", "use 0.5")
        self._opacity = opacity
        self._table = colours_of(classes)
        # 1 for the ids that leave the frame as it is, 0 for those that are drawn.
        self._clear: NDArray[np.uint8] = np.logical_not(self._table.any(axis=1)).astype(np.uint8)
        self._legend, self._drawing = Legend(classes), threading.Lock()
        self.paint = Paint(np.concatenate([self._table, 1 - self._clear[:, None]], axis=1), opacity)

    def __call__(self, frame: Frame, mask: Mask, painted: Frame | None = None) -> Frame:
        """`painted` is the frame with `paint` over it, where that was made before, and is drawn into."""
        import cv2

        if self._opacity == 0:
            return np.array(frame)
        pixels = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
        picture = self._blended(frame, mask, pixels) if painted is None else painted
        with self._drawing:
            self._legend.draw(picture, pixels / mask.size)
        return picture

    def _blended(self, frame: Frame, mask: Mask, pixels: NDArray[Any]) -> Frame:
        import cv2

        colours = cv2.applyColorMap(mask, self._table.reshape(256, 1, 3))
        picture = np.asarray(cv2.addWeighted(frame, 1 - self._opacity, colours, self._opacity, 0), np.uint8)
        if pixels[self._clear == 1].any():
            cv2.copyTo(frame, cv2.LUT(mask, self._clear), picture)
        return picture
