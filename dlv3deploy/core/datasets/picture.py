"""A picture of samples: every image beside its label in the classes' colours, and a legend of the classes that are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.classes import Classes, Colour
from dlv3deploy.core.datasets.dataset import Dataset
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Frame, Mask, check_label, colours_of

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

CELL = (240, 320)  # height and width in pixels that an image is fitted into
PAIRS_ACROSS = 3
GAP, SEAM = 14, 2  # between pairs, and between an image and its label
TEXT, CAPTION = 15, 12
ROW, SWATCH = 24, 14  # of the legend
PAPER, INK, FAINT = (252, 252, 252), (30, 30, 30), (110, 110, 110)
HATCH = (236, 205)  # two greys in stripes for pixels that do not count: no class's colour is taken for them
STRIPE = 4


class Pair(NamedTuple):
    """An image and its painted label, both RGB and of one size, and what stands below them."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    caption: str


def samples_picture(dataset: Dataset, count: int = 12) -> Frame:
    """`count` samples spread over the data set (all where it has fewer), for a look at whether labels lie where they should.

    Raises UserError naming a sample that cannot be read or holds unknown ids.
    """
    if count < 1:
        raise UserError(f"a picture of {count} samples", "shows nothing", "ask for 1 or more")
    shown = min(count, len(dataset))
    pairs, seen = [], np.zeros(256, bool)
    for sample in (dataset.samples[i * len(dataset) // shown] for i in range(shown)):
        frame, label = sample.read()
        check_label(label, dataset.classes, sample.label)
        seen[np.unique(label)] = True
        pairs.append(_pair(frame, label, dataset.classes, sample.image.stem))
    entries: list[tuple[Colour | None, str]] = [
        (dataset.classes.palette[i], name) for i, name in enumerate(dataset.classes.names) if seen[i]
    ]
    if seen[dataset.classes.ignore_index]:
        entries.append((None, "ignored"))
    return _sheet(dataset.description or str(dataset.root), pairs, entries)


def _pair(frame: Frame, label: Mask, classes: Classes, caption: str) -> Pair:
    """Both fitted into a cell: the image averaged, the label by nearest neighbours and painted after, so that ids stay ids."""
    import cv2

    scale = min(CELL[0] / frame.shape[0], CELL[1] / frame.shape[1])
    size = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
    image = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST), np.uint8)
    small = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    painted = colours_of(classes)[:, ::-1][small]
    hatched = _hatch(small.shape[0], small.shape[1])
    return Pair(image[..., ::-1], np.where((small == classes.ignore_index)[..., None], hatched, painted), caption)


def _hatch(height: int, width: int) -> NDArray[np.uint8]:
    """Diagonal stripes, H×W×3."""
    stripes = (np.arange(height)[:, None] + np.arange(width)) // STRIPE % 2
    return np.repeat(np.array(HATCH, np.uint8)[stripes][..., None], 3, axis=2)


def _sheet(heading: str, pairs: list[Pair], entries: list[tuple[Colour | None, str]]) -> Frame:
    from PIL import Image, ImageDraw, ImageFont

    font, small = ImageFont.load_default(TEXT), ImageFont.load_default(CAPTION)
    across = min(PAIRS_ACROSS, len(pairs))
    pair_width = 2 * max(pair.image.shape[1] for pair in pairs) + SEAM
    rows = [pairs[i : i + across] for i in range(0, len(pairs), across)]
    heights = [max(pair.image.shape[0] for pair in row) + CAPTION + GAP for row in rows]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    width = max(across * (pair_width + GAP) + GAP, round(measure.textlength(heading, font)) + 2 * GAP)
    places = _places([name for _, name in entries], width - 2 * GAP, measure, font)
    legend_top = GAP + TEXT + GAP + sum(heights) + GAP // 2
    canvas = Image.new("RGB", (width, legend_top + places[-1][1] + ROW + GAP // 2), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP - 2), heading, INK, font)
    top = GAP + TEXT + GAP
    for row, height in zip(rows, heights, strict=True):
        for i, pair in enumerate(row):
            left = GAP + i * (pair_width + GAP)
            canvas.paste(Image.fromarray(np.ascontiguousarray(pair.image)), (left, top))
            canvas.paste(Image.fromarray(pair.label), (left + pair.image.shape[1] + SEAM, top))
            draw.text((left, top + pair.image.shape[0] + 2), _shortened(pair.caption, pair_width, draw, small), FAINT, small)
        top += height
    for (colour, name), (x, y) in zip(entries, places, strict=True):
        box = (GAP + x, legend_top + y, GAP + x + SWATCH, legend_top + y + SWATCH)
        if colour is None:
            canvas.paste(Image.fromarray(_hatch(SWATCH, SWATCH)), box[:2])
        draw.rectangle(box, colour, outline=FAINT)
        draw.text((box[2] + 6, box[1] - 2), name, INK, font)
    return np.ascontiguousarray(np.asarray(canvas, np.uint8)[..., ::-1])


def _places(names: list[str], width: int, measure: ImageDraw, font: Font) -> list[tuple[int, int]]:
    """Left and top of the legend's entries, in columns as wide as the widest, row by row."""
    column = SWATCH + 6 + 2 * GAP + max(round(measure.textlength(name, font)) for name in names)
    columns = max(1, width // column)
    return [(i % columns * column, i // columns * ROW) for i in range(len(names))]


def _shortened(text: str, room: int, measure: ImageDraw, font: Font) -> str:
    kept = len(text)
    while kept > 1 and measure.textlength(text[:kept] + "…" * (kept < len(text)), font) > room:
        kept -= 1
    return text[:kept] + "…" * (kept < len(text))
