"""Anti-aliased text in any script, rendered once and kept: OpenCV's own letters are ASCII and jagged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

# Pillow's own font covers ASCII and the ellipsis; for anything else the first of these that the machine has.
WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")
RENDERINGS_KEPT = 1024


@dataclass(frozen=True)
class Letters:
    """A line of text: `coverage` is height×width float32, 0 (nothing) to 1 (ink); the height is the font's, not the text's."""

    coverage: NDArray[np.float32]

    @property
    def width(self) -> int:
        return int(self.coverage.shape[1])


class TextPainter:
    """Renders lines and remembers them; not thread-safe."""

    def __init__(self) -> None:
        self._letters: dict[tuple[str, int], Letters] = {}

    def letters(self, text: str, size: int) -> Letters:
        """`text` at `size` pixels."""
        key = text, size
        if key not in self._letters:
            if len(self._letters) >= RENDERINGS_KEPT:
                self._letters.clear()
            self._letters[key] = _render(text, size)
        return self._letters[key]

    def fitted(self, text: str, size: int, room: int) -> Letters:
        """`text`, its end replaced by `…` until it is at most `room` pixels wide."""
        letters = self.letters(text, size)
        kept = len(text)
        while letters.width > room and kept > 1:
            kept -= 1
            letters = self.letters(text[:kept].rstrip() + "…", size)
        return letters


def _render(text: str, size: int) -> Letters:
    from PIL import Image, ImageDraw

    text = " ".join(text.split()) or " "
    font = _font_for(text, size)
    _, top, _, bottom = font.getbbox("Ágjy|")
    left, _, right, _ = font.getbbox(text)
    canvas = Image.new("L", (max(1, round(right - left)), max(1, round(bottom - top))))
    ImageDraw.Draw(canvas).text((-left, -top), text, fill=255, font=font)
    return Letters(np.asarray(canvas).astype(np.float32) * np.float32(1 / 255))


def _font_for(text: str, size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    if not text.replace("…", "").isascii():
        for name in WIDE_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)
