"""The legend: for every class in the mask its colour, its name and its share of the frame, on a translucent panel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.images import Frame
from dlv3deploy.video.text import Letters, TextPainter

SMALLEST_FRAME = 100  # pixels of its longer side; below that a legend would be all there is to see
PANEL_SHADE = 0.62  # how far the panel darkens the frame
WIDEST_PANEL = 0.55  # of the frame's width
HIGHEST_PANEL = 0.65  # of its height
WHITE = (255, 255, 255)
FAINT = (170, 170, 170)


@dataclass(frozen=True)
class Metrics:
    """Lengths in pixels, all in proportion to the text."""

    text: int

    @classmethod
    def for_frame(cls, height: int, width: int) -> Metrics:
        """9 pixels of text at 160×120, 14 at 960×540, 56 at 3840×2160."""
        return cls(int(np.clip(round(min(height, width * 9 / 16) * 0.026), 9, 64)))

    @property
    def row(self) -> int:
        return round(self.text * 1.45)

    @property
    def swatch(self) -> int:
        return round(self.text * 0.85)

    @property
    def gap(self) -> int:
        return max(2, round(self.text * 0.5))

    @property
    def margin(self) -> int:
        return max(2, round(self.text * 0.6))


class Legend:
    """Draws into a frame, top left. Rows keep the order of the class ids, so that they do not jump from frame to frame.

    Where the frame is too low for all, the largest shares are shown and the rest counted.
    """

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._painter = TextPainter()

    def draw(self, picture: Frame, shares: NDArray[np.floating]) -> None:
        """`shares` are by class id, 0 to 1; a class with share 0 is left out. Very small frames are left as they are."""
        height, width = picture.shape[:2]
        metrics = Metrics.for_frame(height, width)
        present = [i for i in range(len(self._classes)) if shares[i] > 0]
        fitting = (int(height * HIGHEST_PANEL) - metrics.gap) // metrics.row
        if not present or fitting < 1 or max(height, width) < SMALLEST_FRAME:
            return
        shown = present
        if len(present) > fitting:
            largest = sorted(present, key=lambda i: shares[i], reverse=True)[: fitting - 1]
            shown = sorted(largest)
        rows = [(self._classes.palette[i], self._classes.names[i], percent(float(shares[i]))) for i in shown]
        self._paint(picture, rows, len(present) - len(shown), metrics)

    def _paint(self, picture: Frame, rows: list[tuple[tuple[int, int, int], str, str]], hidden: int, metrics: Metrics) -> None:
        size, gap = metrics.text, metrics.gap
        number_width = max((self._painter.letters(number, size).width for _, _, number in rows), default=0)
        beside_names = 4 * gap + metrics.swatch + number_width
        room = int(picture.shape[1] * WIDEST_PANEL) - beside_names
        names = [self._painter.fitted(name, size, room) for _, name, _ in rows]
        more = [self._painter.fitted(f"+ {hidden} more", size, room)] if hidden else []
        panel_width = beside_names + max(letters.width for letters in names + more)
        panel_height = metrics.row * (len(names) + len(more)) + gap
        left = top = metrics.margin
        panel = picture[top : top + panel_height, left : left + panel_width]
        panel[:] = (panel * (1 - PANEL_SHADE)).astype(np.uint8)
        name_left = 2 * gap + metrics.swatch
        for i, ((colour, _, number), name) in enumerate(zip(rows, names, strict=True)):
            middle = gap // 2 + metrics.row * i + metrics.row // 2
            _swatch(panel, gap, middle - metrics.swatch // 2, metrics.swatch, colour)
            _write(panel, name, name_left, middle, WHITE)
            digits = self._painter.letters(number, size)
            _write(panel, digits, panel.shape[1] - gap - digits.width, middle, WHITE)
        for letters in more:
            _write(panel, letters, name_left, gap // 2 + metrics.row * len(rows) + metrics.row // 2, FAINT)


def percent(share: float) -> str:
    return "<1%" if share < 0.01 else f"{share:.0%}"


def _swatch(panel: Frame, left: int, top: int, side: int, colour: tuple[int, int, int]) -> None:
    """A square of the class's colour (red, green, blue) with a light rim, so that dark colours show on the dark panel."""
    square = panel[top : top + side, left : left + side]
    square[:] = 200
    rim = max(1, side // 12)
    square[rim:-rim, rim:-rim] = colour[::-1]


def _write(panel: Frame, letters: Letters, left: int, middle: int, colour: tuple[int, int, int]) -> None:
    """Blend letters in, vertically centred on `middle`; what lies outside the panel is cut off."""
    top = max(0, middle - letters.coverage.shape[0] // 2)
    spot = panel[top : top + letters.coverage.shape[0], left : left + letters.width]
    coverage = letters.coverage[: spot.shape[0], : spot.shape[1], None]
    spot[:] = (spot * (1 - coverage) + np.array(colour[::-1], np.float32) * coverage + 0.5).astype(np.uint8)
