"""Time codes in pixels: when a picture was shown, so that the whole way from there to its mask can be measured."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.images import Frame

SIDE = 8  # pixels of one bit's square: two of JPEG's and MPEG's blocks of chroma never share one
ROWS, COLUMNS = 6, 8
SYNC = 0b10100101
HEIGHT, WIDTH = SIDE * ROWS, SIDE * COLUMNS
BLACK, WHITE = 16, 235  # what video with limited range keeps
CONTRAST = 64  # grey values between the darkest bright square and the brightest dark one
CLOCK_MS = 1 << 32  # after 49 days the code begins again


def stamp(frame: Frame, time_s: float) -> None:
    """Draw `time_s`, seconds of `time.monotonic()`, into the top left 48×64 pixels of an H×W×3 frame, to the millisecond."""
    squares = np.where(_bits_of(round(1000 * time_s) % CLOCK_MS), WHITE, BLACK).astype(np.uint8)
    frame[:HEIGHT, :WIDTH] = np.kron(squares, np.ones((SIDE, SIDE), np.uint8))[:, :, None]


def age_ms(frame: Frame, now_s: float) -> float | None:
    """Milliseconds from the time in the frame's code until `now_s`; None for a frame that carries none."""
    if frame.shape[0] < HEIGHT or frame.shape[1] < WIDTH:
        return None
    inner = frame[:HEIGHT, :WIDTH].mean(axis=2).reshape(ROWS, SIDE, COLUMNS, SIDE)[:, 2:-2, :, 2:-2]
    means = inner.mean(axis=(1, 3))
    bits = means > (BLACK + WHITE) / 2
    if bits.all() or not bits.any() or means[bits].min() - means[~bits].max() < CONTRAST:
        return None
    read = int.from_bytes(np.packbits(bits).tobytes(), "big")
    time_ms = read >> 8 & (CLOCK_MS - 1)
    if not np.array_equal(_bits_of(time_ms), bits):
        return None
    now_ms = 1000 * now_s
    return (now_ms - time_ms + CLOCK_MS / 2) % CLOCK_MS - CLOCK_MS / 2


def _bits_of(time_ms: int) -> NDArray[np.bool_]:
    """A mark to know codes by, the time, and a check on it, row by row."""
    data = time_ms.to_bytes(4, "big")
    code = bytes([SYNC, *data, zlib.crc32(data) & 0xFF])
    return np.unpackbits(np.frombuffer(code, np.uint8)).astype(bool).reshape(ROWS, COLUMNS)
