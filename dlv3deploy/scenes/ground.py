"""The ground, pixel by pixel: asphalt, markings, kerbs and pavement slabs.

Every pixel below the horizon is traced to its spot on the plane, so colours and class ids follow from one calculation: ids by
where the centre of the pixel falls, colours by how much of the pixel is covered.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, sin

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.scenes.camera import Camera
from dlv3deploy.scenes.canvas import Canvas
from dlv3deploy.scenes.classes import MARKING, PAVEMENT, ROAD
from dlv3deploy.scenes.look import Look, bgr
from dlv3deploy.scenes.noise import Noise, sample
from dlv3deploy.scenes.road import Road
from dlv3deploy.scenes.sunlight import Sunlight

FAR_GROUND_M = 300.0
BAND_PX = 16384  # pixels that are worked on at once: their arrays stay in the cache
LINE_M = 0.15  # width of a painted line
ZEBRA_LENGTH_M = 3.2
ZEBRA_EVERY_M = 1.0
FINE_PX_M = 40.0  # pixels of the grain's tile for one metre of ground
COARSE_PX_M = 5.0

ASPHALT = bgr(116, 115, 119)
PAINT = bgr(236, 235, 226)
SLAB = bgr(172, 163, 150)
KERB = bgr(196, 194, 188)


@dataclass(frozen=True)
class Grain:
    """Noise tiles: `fine` for grains, `coarse` for stains and repairs."""

    fine: Noise
    coarse: Noise


@dataclass(frozen=True)
class Spots:
    """Where the pixels of the rows below the horizon lie. Metres; R×W unless said otherwise."""

    rows: slice  # the R rows of the image
    depth: Noise  # R×1
    z: Noise
    offset: Noise  # to the right of the road's centre line
    across: Noise  # R×1, a pixel's width on the ground
    along: Noise  # R×1, a pixel's height on the ground


def spots_of(camera: Camera, road: Road, rows: slice) -> Spots:
    """The spots that these rows (all below the horizon) show."""
    down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(camera.horizon)
    depth = np.float32(camera.focal * camera.y) / down
    right = (np.arange(camera.width, dtype=np.float32) - np.float32(camera.middle)) * depth / np.float32(camera.focal)
    c, s = np.float32(cos(camera.yaw)), np.float32(sin(camera.yaw))
    z = np.float32(camera.z) + c * depth - s * right
    offset = np.float32(camera.x) + c * right + s * depth - road.centre(z)
    across = depth / np.float32(camera.focal)
    along = across * depth / np.float32(camera.y)
    return Spots(rows, *(np.asarray(each, np.float32) for each in (depth, z, offset, across, along)))


def paint_ground(
    canvas: Canvas, camera: Camera, road: Road, look: Look, sunlight: Sunlight, grain: Grain, blobs: NDArray[np.uint8]
) -> None:
    """Paint road and pavements; `blobs` (H×W, 255 is full shade) holds the shadows of trees, cars and people."""
    first = min(camera.height, max(0, ceil(camera.horizon + camera.focal * camera.y / FAR_GROUND_M)))
    canvas.label[min(first, max(0, ceil(camera.horizon))) : first] = PAVEMENT
    step = max(1, BAND_PX // camera.width)
    for top in range(first, camera.height, step):
        spots = spots_of(camera, road, slice(top, min(camera.height, top + step)))
        shade = np.float32(1 / 255) * blobs[spots.rows]
        lit = sunlight.reaching(spots.offset, spots.z) * (1 - shade)
        _paint_band(canvas, road, spots, _noise(spots, camera, grain), _light(look, lit, shade))


def _light(look: Look, lit: Noise, shade: Noise) -> Noise:
    """R×W×3 factors: sunlight where it arrives, skylight everywhere, less of it close to things."""
    return np.asarray(np.stack((1 - np.float32(0.35) * shade, lit), axis=-1) @ np.stack(look.on_ground()), np.float32)


def _paint_band(canvas: Canvas, road: Road, spots: Spots, noise: tuple[Noise, Noise], light: Noise) -> None:
    side = np.abs(spots.offset)
    marked, paint = _markings(road, spots, side)
    paved = _cover(side - np.float32(road.front_m + 50), np.float32(road.pavement_m + 50), spots.across)
    fine, coarse = noise
    on_road = _asphalt(road, side, fine, coarse)
    on_pavement = np.zeros_like(paved)
    where = paved > 0
    on_pavement[where] = _slabs(road, spots, where) + 0.05 * fine[where] + 0.045 * coarse[where]
    kerb = _cover(side - np.float32(road.half_m + 0.09), np.float32(0.09), spots.across)
    gutter = _cover(side - np.float32(road.half_m - 0.12), np.float32(0.12), spots.across)
    worn = paint * np.clip(0.86 + 0.10 * coarse + 0.05 * fine, 0.35, 1.0)

    on_road *= 1 - 0.22 * gutter
    bare, clean = (1 - paved) * (1 - kerb), 1 - worn
    shares = (on_road * clean * bare, worn * bare, on_pavement * paved * (1 - kerb), (0.97 + 0.04 * fine) * kerb)
    colour = np.stack(shares, axis=-1) @ np.stack((ASPHALT, PAINT, SLAB, KERB))
    colour *= light
    canvas.frame[spots.rows] = np.minimum(colour, 255, out=colour).astype(np.uint8)
    canvas.depth[spots.rows] = spots.depth
    label = np.where(side < np.float32(road.half_m), np.where(marked, np.uint8(MARKING), np.uint8(ROAD)), np.uint8(PAVEMENT))
    canvas.label[spots.rows] = label


def _markings(road: Road, spots: Spots, side: Noise) -> tuple[NDArray[np.bool_], Noise]:
    """Which pixel centres are painted, and how much of each pixel is."""
    period = np.float32(road.dash_m + road.gap_m)
    beside = spots.z - period * np.rint(spots.z / period)
    crossing = np.abs(road.from_crossing(spots.z))
    clear = crossing > ZEBRA_LENGTH_M
    half_line, half_dash = np.float32(LINE_M / 2), np.float32(road.dash_m / 2)

    marked = (side < half_line) & clear
    paint = _cover(spots.offset, half_line, spots.across) * clear
    if road.gap_m > 0:
        marked &= np.abs(beside) < half_dash
        paint *= _cover(beside, half_dash, spots.along)
    edge = side - np.float32(road.lane_m)
    marked |= (np.abs(edge) < half_line) & clear
    paint = np.maximum(paint, _cover(edge, half_line, spots.across) * clear)

    half_zebra, half_stripe = np.float32(ZEBRA_LENGTH_M / 2), np.float32(ZEBRA_EVERY_M / 4)
    if not (crossing < half_zebra + spots.along).any():
        return marked, paint
    stripe = spots.offset - np.float32(ZEBRA_EVERY_M) * np.rint(spots.offset / np.float32(ZEBRA_EVERY_M))
    on_lanes = side < np.float32(road.half_m - 0.4)
    marked |= (crossing < half_zebra) & (np.abs(stripe) < half_stripe) & on_lanes
    zebra = _cover(crossing, half_zebra, spots.along) * _cover(stripe, half_stripe, spots.across) * on_lanes
    return marked, np.maximum(paint, zebra)


def _cover(distance: Noise, half: np.float32, pixel: Noise) -> Noise:
    """The share of a pixel (its width on the ground) that a strip of half-width `half` covers, from its middle's distance."""
    share = np.clip((half - np.abs(distance)) / pixel + np.float32(0.5), 0, 1)
    return np.asarray(share * np.minimum(1, 2 * half / pixel), np.float32)


def _noise(spots: Spots, camera: Camera, grain: Grain) -> tuple[Noise, Noise]:
    """Fine grain, faded where pixels are larger than it, and coarse stains; both stay in place on the road."""
    tile = len(grain.fine)
    turn = np.float32(camera.z - camera.z % (tile / COARSE_PX_M))
    near = spots.z - turn
    coarse = sample(grain.coarse, spots.offset * np.float32(COARSE_PX_M), near * np.float32(COARSE_PX_M))
    fade = 1 / (1 + (spots.along * np.float32(FINE_PX_M / 8)) ** 2)
    fine = sample(grain.fine, spots.offset * np.float32(FINE_PX_M), near * np.float32(FINE_PX_M / 2)) * fade
    return np.asarray(fine, np.float32), coarse


def _asphalt(road: Road, side: Noise, fine: Noise, coarse: Noise) -> Noise:
    """Brightness: grain, stains, polished wheel tracks, an oil trace between them, and cracks."""
    lane = np.abs(side - np.float32(road.lane_m / 2))
    tracks = np.exp(-(((lane - 0.8) / 0.35) ** 2)) * 0.06 - np.exp(-((lane / 0.35) ** 2)) * 0.07
    cracks = np.where(np.abs(coarse - 0.9) < 0.05, np.float32(-0.12), np.float32(0)) * (np.abs(fine) < 1.2)
    return np.asarray(0.98 + 0.05 * fine + 0.055 * coarse + tracks + cracks, np.float32)


def _slabs(road: Road, spots: Spots, where: NDArray[np.bool_]) -> Noise:
    """Brightness of the chosen pixels (flat) as a pavement of square slabs with dark joints, without grain."""
    slab = np.float32(road.slab_m)
    offset, z = spots.offset[where], spots.z[where]
    across, along = (np.broadcast_to(size, where.shape)[where] for size in (spots.across, spots.along))
    tone = np.mod(np.floor(offset / slab) * np.float32(0.618) + np.floor(z / slab) * np.float32(0.377), 1) - np.float32(0.5)
    joint_x, joint_z = (place - slab * np.rint(place / slab) for place in (offset, z))
    joints = np.maximum(_cover(joint_x, np.float32(0.02), across), _cover(joint_z, np.float32(0.02), along))
    fade = 1 / (1 + (along / slab * 2) ** 2)
    return np.asarray(0.99 + fade * (0.07 * tone - 0.22 * joints), np.float32)
