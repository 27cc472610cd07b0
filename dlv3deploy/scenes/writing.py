"""Scenes on the disk: a data set with train and val, a video, and the labels of a video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import read_json, replacing, write_json
from dlv3deploy.core.images import Frame, Mask, write_frame, write_mask
from dlv3deploy.core.progress import tracked
from dlv3deploy.scenes.classes import ROAD_SCENE
from dlv3deploy.scenes.drive import Drive

VIEWS = 4  # views of one drive in a data set
APART_S = 7.0  # far enough for another stretch of the street


def write_dataset(root: Path, train: int, val: int, seed: int, size: tuple[int, int]) -> None:
    """Write `train` and `val` pairs of `size` (height, width) below `root`, in the form that `core.datasets` reads.

    `root/train` and `root/val` hold images/ (JPEG) and labels/ (PNG class ids), `root/classes.json` the classes. No drive is in
    both splits. Scenes of an earlier call are replaced. Raises UserError when a count is below 1, when the size or seed is not
    one that `Drive` takes, or when `root` holds something else.
    """
    if min(train, val) < 1:
        raise UserError(f"{train} training and {val} validation images", "both splits need one or more", "ask for more")
    Drive(seed, *size)  # refuses what no drive can have, before anything is touched
    _make_room(root)
    write_json(root / "classes.json", ROAD_SCENE.to_json())
    for split, count in (("train", train), ("val", val)):
        views = _views(drive_seeds(seed, split, count), count, size)
        for number, (frame, label) in enumerate(tracked(views, f"painting {split} scenes", count)):
            name = f"{number:05d}"
            write_frame(root / split / "images" / f"{name}.jpg", frame)
            write_mask(root / split / "labels" / f"{name}.png", label, ROAD_SCENE)


def _make_room(root: Path) -> None:
    """Remove the scenes of an earlier call; what is no generated data set is left as it is, and refused."""
    splits = [root / split for split in ("train", "val") if (root / split).exists()]
    classes = root / "classes.json"
    if (splits or classes.exists()) and not (classes.is_file() and read_json(classes) == ROAD_SCENE.to_json()):
        raise UserError(str(root), "holds something other than generated scenes", "choose an empty folder")
    for split in splits:
        for path in (*split.glob("images/[0-9]*.jpg"), *split.glob("labels/[0-9]*.png")):
            path.unlink()


def drive_seeds(seed: int, split: str, count: int) -> list[int]:
    """The seeds of the drives that give `count` views: even ones for train, odd ones for val, so that no drive is in both."""
    odd = {"train": 0, "val": 1}[split]
    rng = np.random.default_rng((seed, odd))
    return [2 * int(n) + odd for n in rng.integers(1 << 48, size=-(-count // VIEWS))]


def write_video(path: Path, drive: Drive, seconds: float, fps: float) -> None:
    """Write the drive's first `seconds` as an MP4 of `fps` frames a second. Raises UserError when it cannot be encoded."""
    import cv2

    times = frame_times(seconds, fps)
    if drive.height % 2 or drive.width % 2:
        raise UserError(f"a video of {drive.width}×{drive.height}", "MPEG-4 needs even sides", "make the drive a pixel larger")
    with replacing(path) as partial:
        writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"mp4v"), fps, (drive.width, drive.height))
        if not writer.isOpened():
            raise UserError(str(path), "no MPEG-4 encoder takes this", "end the name in .mp4")
        try:
            for time_s in tracked(times, "painting the video", len(times)):
                writer.write(drive.at(time_s)[0])
        finally:
            writer.release()


def write_labels(folder: Path, drive: Drive, seconds: float, fps: float) -> None:
    """Write the labels of `write_video`'s frames as folder/000000.png, 000001.png, … (PNG class ids)."""
    times = frame_times(seconds, fps)
    for number, time_s in enumerate(tracked(times, "painting labels", len(times))):
        write_mask(folder / f"{number:06d}.png", drive.at(time_s)[1], ROAD_SCENE)


def frame_times(seconds: float, fps: float) -> list[float]:
    """When each frame is taken, from 0 on; one frame at least."""
    if not (seconds > 0 and fps > 0):
        raise UserError(f"{seconds} s at {fps} frames a second", "both are above 0", "use 10 s at 30")
    return [i / fps for i in range(max(1, round(seconds * fps)))]


def _views(seeds: list[int], count: int, size: tuple[int, int]) -> Iterator[tuple[Frame, Mask]]:
    """`count` views, VIEWS from each drive."""
    for number in range(count):
        view = number % VIEWS
        if view == 0:
            drive = Drive(seeds[number // VIEWS], *size)
        yield drive.at(view * APART_S)
