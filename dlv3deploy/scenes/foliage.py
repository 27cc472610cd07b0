"""Crowns of trees and hedges: clumps of leaves, lit from the sun's side, as pictures with alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.scenes.canvas import Texture, pyramid_of
from dlv3deploy.scenes.look import Bgr, Look
from dlv3deploy.scenes.noise import Noise

COARSE = 64  # clumps are shaded on this many pixels a side
FINE = 160  # leaves are added on this many
CLUMPS = 30


def crown_of(rng: np.random.Generator, look: Look, leaf: Bgr, noise: Noise, conical: float) -> tuple[Texture, ...]:
    """A pyramid of FINE×FINE×4 pictures (BGR multiplied by alpha); `conical` 0 is a round crown, 1 a fir."""
    centres, radii = _clumps(rng, conical)
    cells = (np.arange(COARSE, dtype=np.float32) + np.float32(0.5)) / COARSE * 2 - 1
    dx = cells[None, None, :] - centres[:, 0, None, None]
    dy = -cells[None, :, None] - centres[:, 1, None, None]
    bulge = radii[:, None, None] ** 2 - dx**2 - dy**2
    toward = np.sqrt(np.maximum(bulge, 0)) + centres[:, 2, None, None]
    toward[bulge <= 0] = -9
    front = toward.argmax(axis=0)[None]

    def of_front(values: NDArray[Any]) -> Noise:
        return np.asarray(np.take_along_axis(values, front, axis=0)[0], np.float32)

    radius = radii[front[0]]
    whole = np.broadcast_to(cells, (COARSE, COARSE))  # the crown's own roundness, mixed with that of its clumps
    nx, ny = 0.55 * of_front(dx) / radius + 0.45 * whole, 0.55 * of_front(dy) / radius - 0.45 * whole.T
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
    sun = look.sun.astype(np.float32)
    facing = np.clip(nx * sun[0] + ny * sun[1] - nz * sun[2], 0, 1)
    inner = np.clip(of_front(toward) * 0.5 + 0.62, 0.35, 1.0) * (0.78 + 0.22 * np.clip(ny + 0.4, 0, 1))
    edge = (bulge / radii[:, None, None] ** 2).max(axis=0)
    return pyramid_of(_leaves(look, leaf, noise, facing, inner, edge), smallest=3)


def hedge_of(look: Look, leaf: Bgr, noise: Noise, normal: tuple[float, float, float]) -> tuple[Texture, ...]:
    """A pyramid of a trimmed hedge's side (64×256×3), lit for a face with this normal."""
    grain = np.tile(noise[:64, :128], (1, 2))
    coarse = np.tile(np.repeat(np.repeat(noise[64:96, 64:96], 2, axis=0), 4, axis=1), (1, 2))
    tone = 0.8 + 0.16 * grain + 0.10 * coarse + np.linspace(0.18, -0.32, 64, dtype=np.float32)[:, None]
    colour = leaf * look.light(normal) * np.clip(tone, 0.2, 1.5)[:, :, None]
    return pyramid_of(np.clip(colour, 0, 255).astype(np.uint8))


def _clumps(rng: np.random.Generator, conical: float) -> tuple[Noise, Noise]:
    """Centres (N×3: right, up, towards the viewer; the crown is −1 to 1) and radii (N) of the clumps."""
    angle = rng.uniform(0, 2 * np.pi, CLUMPS)
    up = rng.uniform(-0.72, 0.72, CLUMPS)
    girth = (1 - conical) * np.sqrt(1 - up**2) + conical * (0.86 - up) * 0.55
    reach = girth * np.sqrt(rng.uniform(0.05, 1, CLUMPS)) * 0.72
    radii = rng.uniform(0.2, 0.36, CLUMPS) * (1 - 0.35 * conical * (up + 0.7))
    centres = np.stack((reach * np.cos(angle), up, reach * np.sin(angle)), axis=1)
    return centres.astype(np.float32), radii.astype(np.float32)


def _leaves(look: Look, leaf: Bgr, noise: Noise, facing: Noise, inner: Noise, edge: Noise) -> Texture:
    """Shading and outline at full size, broken up by single leaves."""
    import cv2

    def enlarge(values: Noise) -> Noise:
        return np.asarray(cv2.resize(values, (FINE, FINE), interpolation=cv2.INTER_LINEAR), np.float32)

    grain = noise[:FINE, :FINE]
    alpha = np.clip((enlarge(edge) - 0.16 - 0.16 * grain) * 5, 0, 1)
    speckle = np.clip(0.86 + 0.22 * grain, 0.3, 1.6)
    light = look.ambient * (0.92 * enlarge(inner))[:, :, None]
    light += look.direct * (1.05 * enlarge(facing * inner))[:, :, None]
    colour = np.clip(leaf * light * speckle[:, :, None], 0, 255)
    return np.concatenate((colour * alpha[:, :, None], alpha[:, :, None] * 255), axis=2).astype(np.uint8)
