"""House fronts: windows, doors, shops, balconies and cornices, drawn flat once per drive and then put into perspective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.scenes.canvas import Texture, pyramid_of
from dlv3deploy.scenes.look import Bgr, Look, bgr, mix
from dlv3deploy.scenes.noise import Noise

PLASTERS = (
    bgr(226, 208, 168), bgr(214, 178, 142), bgr(196, 206, 196), bgr(232, 226, 212),
    bgr(206, 158, 140), bgr(178, 190, 204), bgr(222, 192, 130),
)  # fmt: skip
BRICKS = (bgr(150, 82, 64), bgr(168, 104, 80), bgr(128, 78, 66), bgr(176, 132, 98))
CONCRETES = (bgr(160, 164, 166), bgr(140, 146, 152), bgr(184, 180, 172))
ROOFS = (bgr(146, 78, 58), bgr(92, 84, 84), bgr(120, 72, 60), bgr(78, 82, 90))
ACCENTS = (bgr(150, 40, 44), bgr(36, 84, 120), bgr(38, 100, 72), bgr(196, 140, 40), bgr(60, 56, 62), bgr(120, 60, 110))
LAMP = bgr(255, 212, 138)
DEEP_M = 11.0  # from the front of a house to its back


@dataclass(frozen=True)
class Facade:
    """Textures are pyramids, already lit: the fronts of the left and the right row, and the end wall that faces the camera."""

    width_m: float
    height_m: float
    rise_m: float  # of the roof above the eaves; 0 is a flat roof
    roof: Bgr
    wall: Bgr
    left: tuple[Texture, ...]
    right: tuple[Texture, ...]
    end: tuple[Texture, ...]


@dataclass(frozen=True)
class Plan:
    """What a front is made of, in metres; random, and the same at every resolution."""

    style: str
    bays: int
    floors: int
    bay_m: float
    floor_m: float
    wall: Bgr
    trim: Bgr
    accent: Bgr
    shops: bool
    balconies: bool
    shutters: bool

    @property
    def width_m(self) -> float:
        return self.bays * self.bay_m

    @property
    def height_m(self) -> float:
        return (self.floors + 1) * self.floor_m + 0.7


@dataclass(frozen=True)
class Sheet:
    """A drawing in metres, x from the left and y from the ground up, on pixels. `glow` marks what shines by itself."""

    colour: Texture
    glow: NDArray[np.uint8]
    scale: float  # pixels a metre

    def box(self, x: float, y: float, width: float, height: float, colour: Bgr) -> None:
        columns, rows = self._window(x, y, width, height)
        self.colour[rows, columns] = colour.astype(np.uint8)

    def shine(self, x: float, y: float, width: float, height: float, colour: Bgr) -> None:
        columns, rows = self._window(x, y, width, height)
        self.colour[rows, columns] = colour.astype(np.uint8)
        self.glow[rows, columns] = 1

    def tint(self, x: float, y: float, width: float, height: float, factor: float) -> None:
        columns, rows = self._window(x, y, width, height)
        part = self.colour[rows, columns]
        part[...] = np.clip(part * np.float32(factor), 0, 255).astype(np.uint8)

    def _window(self, x: float, y: float, width: float, height: float) -> tuple[slice, slice]:
        tall, wide = self.glow.shape
        left, right = round(x * self.scale), round((x + width) * self.scale)
        top, bottom = round(tall - (y + height) * self.scale), round(tall - y * self.scale)
        return (
            slice(max(0, min(wide, left)), max(0, min(wide, max(right, left + 1)))),
            slice(max(0, min(tall, top)), max(0, min(tall, max(bottom, top + 1)))),
        )


def facade_of(rng: np.random.Generator, look: Look, noise: Noise, scale: float) -> Facade:
    """A random front at `scale` pixels a metre, lit for both sides of the street."""
    plan = _plan(rng)
    sheet = _wall(plan.width_m, plan.height_m, plan, noise, scale)
    FRONTS[plan.style](sheet, plan, look, rng)
    end = _wall(DEEP_M, plan.height_m, plan, noise, scale / 2)
    for floor in range(1, plan.floors + 1):
        if plan.style != "brick":
            _window(end, 4.6, floor * plan.floor_m + 0.9, 1.1, 1.5, plan, look, rng)
    pitched = plan.style != "glass" and plan.floors <= 4
    return Facade(
        plan.width_m,
        plan.height_m,
        float(rng.uniform(2.2, 3.6)) if pitched else 0.0,
        ROOFS[int(rng.integers(len(ROOFS)))],
        plan.wall,
        _lit(sheet, look.light((1.0, 0.0, 0.0))),
        _lit(sheet, look.light((-1.0, 0.0, 0.0))),
        _lit(end, look.light((0.0, 0.0, -1.0))),
    )


def _plan(rng: np.random.Generator) -> Plan:
    style = str(rng.choice(("plaster", "plaster", "brick", "glass")))
    walls = {"plaster": PLASTERS, "brick": BRICKS, "glass": CONCRETES}[style]
    low, high = {"plaster": (2, 4), "brick": (1, 4), "glass": (3, 7)}[style]
    wall = walls[int(rng.integers(len(walls)))] * np.float32(rng.uniform(0.9, 1.06))
    return Plan(
        style,
        bays=int(rng.integers(3, 7)),
        floors=int(rng.integers(low, high + 1)),
        bay_m=float(rng.uniform(2.3, 3.0)),
        floor_m=float(rng.uniform(2.9, 3.3)),
        wall=np.clip(wall, 0, 250),
        trim=mix(wall, bgr(244, 240, 230), 0.65),
        accent=ACCENTS[int(rng.integers(len(ACCENTS)))],
        shops=bool(rng.random() < 0.55),
        balconies=bool(rng.random() < 0.35),
        shutters=bool(rng.random() < 0.3),
    )


def _wall(width_m: float, height_m: float, plan: Plan, noise: Noise, scale: float) -> Sheet:
    """Plain masonry with stains, grain, courses of brick, and dirt rising from the ground."""
    import cv2

    wide, tall = max(8, round(width_m * scale)), max(8, round(height_m * scale))
    rows, columns = np.arange(tall), np.arange(wide)
    stains = np.take(np.take(noise, rows % len(noise), axis=0), columns % len(noise), axis=1)
    tone = 1 + np.float32(0.035) * stains
    up = (tall - rows) / scale
    tone = tone * (0.94 + 0.06 * np.clip(up / height_m, 0, 1) - 0.16 * np.exp(-up / 0.5))[:, None].astype(np.float32)
    if plan.style == "brick":
        course = max(2, round(0.28 * scale))
        tone[::course] *= np.float32(0.86)
        tone[:, :: max(3, round(0.6 * scale))] *= np.float32(0.95)
    colour = cv2.merge([cv2.convertScaleAbs(tone, alpha=channel) for channel in plan.wall.tolist()])
    return Sheet(np.asarray(colour, np.uint8), np.zeros((tall, wide), np.uint8), scale)


def _house(sheet: Sheet, plan: Plan, look: Look, rng: np.random.Generator) -> None:
    """Rows of single windows, a moulding on every floor, doors or shops at the bottom, a cornice on top."""
    for floor in range(1, plan.floors + 1):
        base = floor * plan.floor_m
        sheet.box(0, base, plan.width_m, 0.14, plan.trim)
        sheet.tint(0, base - 0.1, plan.width_m, 0.1, 0.82)
        for bay in range(plan.bays):
            x = bay * plan.bay_m + plan.bay_m / 2 - 0.55
            _window(sheet, x, base + 0.85, 1.1, 1.6, plan, look, rng)
            if plan.balconies and bay % 2 == 1:
                _balcony(sheet, x - 0.3, base + 0.2, 1.7, plan)
    _ground_floor(sheet, plan, look, rng)
    sheet.tint(0, plan.height_m - 0.75, plan.width_m, 0.25, 0.78)
    sheet.box(0, plan.height_m - 0.5, plan.width_m, 0.5, plan.trim)
    sheet.tint(0, plan.height_m - 0.5, plan.width_m, 0.14, 0.85)


def _office(sheet: Sheet, plan: Plan, look: Look, rng: np.random.Generator) -> None:
    """Bands of glass between slabs of concrete."""
    for floor in range(1, plan.floors + 1):
        base = floor * plan.floor_m
        for bay in range(plan.bays):
            x = bay * plan.bay_m
            _pane(sheet, x + 0.08, base + 0.75, plan.bay_m - 0.16, plan.floor_m - 0.85, look, rng)
            sheet.box(x + plan.bay_m / 2 - 0.04, base + 0.75, 0.08, plan.floor_m - 0.85, plan.trim)
        sheet.tint(0, base + 0.6, plan.width_m, 0.12, 0.72)
    _ground_floor(sheet, plan, look, rng)
    sheet.box(0, plan.height_m - 0.35, plan.width_m, 0.35, plan.trim)


FRONTS: dict[str, Callable[[Sheet, Plan, Look, np.random.Generator], None]] = {
    "plaster": _house,
    "brick": _house,
    "glass": _office,
}


def _window(
    sheet: Sheet, x: float, y: float, width: float, height: float, plan: Plan, look: Look, rng: np.random.Generator
) -> None:
    if plan.shutters:
        for side in (x - 0.5, x + width + 0.08):
            sheet.box(side, y, 0.42, height, plan.accent)
    sheet.box(x - 0.12, y - 0.06, width + 0.24, height + 0.2, plan.trim)
    _pane(sheet, x, y, width, height, look, rng)
    sheet.box(x + width / 2 - 0.03, y, 0.06, height, plan.trim)
    sheet.box(x, y + height * 0.66, width, 0.06, plan.trim)
    sheet.box(x - 0.2, y - 0.14, width + 0.4, 0.12, plan.trim)
    sheet.tint(x - 0.15, y - 0.26, width + 0.3, 0.12, 0.75)


def _pane(sheet: Sheet, x: float, y: float, width: float, height: float, look: Look, rng: np.random.Generator) -> None:
    """Glass: dark below, the sky's reflection above, now and then a curtain, or a lamp behind it."""
    on, curtain, tone = rng.random(), rng.random(), rng.uniform(0.8, 1.2)
    if on < look.lamps * 0.75:
        sheet.shine(x, y, width, height, LAMP * np.float32(0.75 + 0.2 * tone / 1.2))
        sheet.tint(x, y, width, height * 0.3, 0.85)
        return
    dark = bgr(44, 52, 60) * np.float32(tone)
    sheet.box(x, y, width, height, dark)
    sheet.box(x, y + height * 0.4, width, height * 0.6, mix(dark, look.sky.horizon, 0.22))
    sheet.box(x, y + height * 0.75, width, height * 0.25, mix(dark, look.sky.zenith, 0.42))
    sheet.tint(x, y + height - 0.1, width, 0.1, 0.55)
    if curtain < 0.35:
        cloth = bgr(206, 200, 186)
        sheet.box(x, y, width * 0.24, height, cloth)
        sheet.box(x + width * 0.76, y, width * 0.24, height, cloth)


def _balcony(sheet: Sheet, x: float, y: float, width: float, plan: Plan) -> None:
    rail = bgr(52, 52, 56)
    sheet.box(x, y, width, 0.16, mix(plan.wall, bgr(120, 116, 110), 0.5))
    sheet.tint(x, y - 0.3, width, 0.3, 0.72)
    for bar in np.arange(x + 0.04, x + width, 0.22):
        sheet.box(float(bar), y + 0.16, 0.05, 0.8, rail)
    sheet.box(x, y + 0.92, width, 0.07, rail)


def _ground_floor(sheet: Sheet, plan: Plan, look: Look, rng: np.random.Generator) -> None:
    door = int(rng.integers(plan.bays))
    for bay in range(plan.bays):
        x = bay * plan.bay_m
        if bay == door:
            sheet.box(x + plan.bay_m / 2 - 0.75, 0, 1.5, 2.45, plan.trim)
            sheet.box(x + plan.bay_m / 2 - 0.55, 0, 1.1, 2.1, plan.accent * np.float32(0.8))
            sheet.box(x + plan.bay_m / 2 - 0.3, 1.1, 0.6, 0.8, bgr(60, 66, 72))
        elif plan.shops:
            _shop(sheet, x, plan, look, rng)
        else:
            _window(sheet, x + plan.bay_m / 2 - 0.55, 0.95, 1.1, 1.5, plan, look, rng)


def _shop(sheet: Sheet, x: float, plan: Plan, look: Look, rng: np.random.Generator) -> None:
    """A shop window with a sign above it and a striped awning over it."""
    sheet.box(x, 0, plan.bay_m, plan.floor_m - 0.15, plan.accent * np.float32(0.75))
    _pane(sheet, x + 0.15, 0.45, plan.bay_m - 0.3, 1.75, look, rng)
    sheet.box(x, 2.55, plan.bay_m, 0.4, plan.accent)
    for letter in np.arange(x + 0.5, x + plan.bay_m - 0.6, 0.32):
        sheet.box(float(letter), 2.65, 0.18, 0.2, bgr(240, 234, 214))
    if rng.random() < 0.6:
        for i, stripe in enumerate(np.arange(x, x + plan.bay_m - 0.1, 0.3)):
            sheet.box(float(stripe), 1.95, 0.3, 0.55, plan.accent if i % 2 else bgr(238, 232, 220))
        sheet.tint(x, 1.75, plan.bay_m, 0.2, 0.55)


def _lit(sheet: Sheet, light: Bgr) -> tuple[Texture, ...]:
    import cv2

    lit = cv2.transform(sheet.colour, np.diag(light))
    cv2.copyTo(sheet.colour, sheet.glow, lit)
    return pyramid_of(np.asarray(lit, np.uint8))
