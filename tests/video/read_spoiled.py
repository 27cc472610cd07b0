"""Read what is left of videos and pictures that were spoiled by chance; one line of JSON for each.

    python read_spoiled.py SEED COUNT FOLDER

A process of its own, so that a crash in a decoder is seen as one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from video_stand_ins import grey_frame, write_video

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import open_source, parse_source

VIDEOS, PICTURES = (".mp4", ".avi", ".mkv"), (".jpg", ".png", ".webp", ".tif", ".bmp")
FRAMES = 12


def good_files(folder: Path) -> list[tuple[str, bytes]]:
    found = []
    for suffix in VIDEOS:
        found.append((suffix, write_video(folder / f"good{suffix}", FRAMES).read_bytes()))
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for suffix in PICTURES:
        found.append((suffix, cv2.imencode(suffix, noise // 2 + grey_frame(60))[1].tobytes()))
    return found


def spoiled(data: bytes, chance: np.random.Generator) -> tuple[str, bytes]:
    """What was done, and what is left of `data`."""
    values = bytearray(data)
    match chance.integers(6):
        case 0:
            return "cut", bytes(values[: chance.integers(len(values))])
        case 1:
            return "empty", b""
        case 2:
            for place in chance.integers(0, len(values), chance.integers(1, 40)):
                values[place] = chance.integers(256)
            return "bytes", bytes(values)
        case 3:
            start = int(chance.integers(len(values)))
            end = min(len(values), start + int(chance.integers(1, 4096)))
            values[start:end] = bytes(end - start)
            return "zeros", bytes(values)
        case 4:
            start, end = sorted(int(place) for place in chance.integers(0, len(values), 2))
            del values[start:end]
            return "hole", bytes(values)
        case _:
            size = int(chance.integers(4, 64))  # of the head, where lengths and sizes stand
            values[:size] = chance.bytes(size)
            return "head", bytes(values)


def read(path: Path) -> dict[str, object]:
    frames, failed, error = 0, 0, None
    try:
        with open_source(parse_source(str(path))) as source:
            while (frame := source.read()) is not None:
                assert frame.pixels.ndim == 3 and frame.pixels.dtype == np.uint8
                frames += 1
            failed = source.failed
    except UserError as refused:
        error = str(refused)
    return {"frames": frames, "failed": failed, "error": error}


def main() -> None:
    seed, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    chance = np.random.default_rng(seed)
    good = good_files(folder)
    for number in range(count):
        suffix, data = good[chance.integers(len(good))]
        kind, left = spoiled(data, chance)
        path = folder / f"spoiled_{number:03d}{suffix}"
        path.write_bytes(left)
        print(json.dumps({"path": str(path), "kind": kind, **read(path)}), flush=True)


if __name__ == "__main__":
    main()
