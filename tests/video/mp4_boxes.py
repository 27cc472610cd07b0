"""Changing what an MP4 file says of its pictures: how they are turned, and how long each is shown."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}  # clockwise, when shown
MATRIX = 48  # where a track header (version 0) has its matrix
ONE = 1 << 16


def turn(path: Path, degrees: int) -> None:
    """Have players show the pictures turned clockwise, as a phone held upright has it."""
    data = bytearray(path.read_bytes())
    at = _find(data, ("moov", "trak", "tkhd"))[-1] + MATRIX
    a, b, c, d = (ONE * value for value in TURNS[degrees])
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def retime(path: Path, seconds: Sequence[float]) -> None:
    """Have players show each picture for its own time."""
    data = bytearray(path.read_bytes())
    header = _find(data, ("moov", "trak", "mdia", "mdhd"))[-1]
    movie, track = _find(data, ("moov", "mvhd"))[-1], _find(data, ("moov", "trak", "tkhd"))[-1]
    (per_second,), (movie_per_second,) = (struct.unpack_from(">I", data, at + 20) for at in (header, movie))
    struct.pack_into(">I", data, header + 24, round(sum(seconds) * per_second))
    edits = _find(data, ("moov", "trak", "edts", "elst"))[-1]
    for place in (movie + 24, track + 28, edits + 16):  # beyond which players show nothing
        struct.pack_into(">I", data, place, round(sum(seconds) * movie_per_second))
    entries = b"".join(struct.pack(">2I", 1, round(duration * per_second)) for duration in seconds)
    body = struct.pack(">2I", 0, len(seconds)) + entries
    boxes = _find(data, ("moov", "trak", "mdia", "minf", "stbl", "stts"))
    (before,) = struct.unpack_from(">I", data, boxes[-1])
    assert data.find(b"mdat") < boxes[0], "the index comes last, so that no offset moves"
    data[boxes[-1] + 8 : boxes[-1] + before] = body
    for box in boxes:
        (size,) = struct.unpack_from(">I", data, box)
        struct.pack_into(">I", data, box, size + 8 + len(body) - before)
    path.write_bytes(data)


def _find(data: bytes, names: Sequence[str]) -> list[int]:
    """Where each of the boxes begins that lie in one another."""
    found, at, end = list[int](), 0, len(data)
    for name in names:
        while True:
            assert at < end, f"no {name} box"
            size, kind = struct.unpack_from(">I4s", data, at)
            if kind == name.encode():
                break
            at += size
        found.append(at)
        at, end = at + 8, at + size
    return found
