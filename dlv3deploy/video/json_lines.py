"""JSON lines: of every frame when it was captured, what is in it, and how long its mask took."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import write_error
from dlv3deploy.video.sink import Segmented, Sink

SUFFIXES = (".jsonl", ".ndjson")
KEYS = ("frame", "name", "time", "position", "delay_ms", "stages_ms", "shares")
OLDER_KEYS = tuple(key for key in KEYS if key != "position")  # files of earlier runs lack it


class JsonLines(Sink):
    """One object a line, whole on the disk as soon as it is written, so that it can be followed and survives a kill.

    `frame` counts what the source captured, `time` is when, in seconds since 1970, `position` where it lies in a video file, in
    seconds from its first frame, null elsewhere; `delay_ms` from `time` until the mask was ready, `stages_ms` what each stage
    took; `shares` of the frame's pixels by class, 0 to 1, those that are there. A file of an earlier run is emptied by the
    first frame. Raises UserError for a file that no run wrote, and when it cannot be written.
    """

    def __init__(self, path: Path, classes: Classes) -> None:
        self._path, self._names = path, classes.names
        if path.is_file() and path.stat().st_size and not _made_by_a_run(path):
            raise UserError(str(path), "was not written by a run, and would be lost", "give the lines a file of their own")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] | None = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise write_error(path, error) from error
        self._epoch_s, self._lines = time.time() - time.monotonic(), 0

    def write(self, result: Segmented) -> None:
        if self._file is None:
            return
        try:
            if self._lines == 0:
                self._file.truncate(0)
            self._lines += 1
            self._file.write(json.dumps(self._line(result), ensure_ascii=False) + "\n")
        except OSError as error:
            raise write_error(self._path, error) from error

    def _line(self, result: Segmented) -> dict[str, Any]:
        counts = np.bincount(result.mask.ravel(), minlength=len(self._names))
        shares = {name: round(int(n) / result.mask.size, 6) for name, n in zip(self._names, counts, strict=False) if n}
        captured = result.frame
        position_s = None if captured.position_s is None else round(captured.position_s, 6)
        times = (round(self._epoch_s + captured.time_s, 6), position_s)
        values = (captured.index, captured.name, *times, *_timing(result), shares)
        return dict(zip(KEYS, values, strict=True))

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
                if self._path.stat().st_size == 0:  # made here, for frames that did not come
                    self._path.unlink()
            except OSError as error:
                raise write_error(self._path, error) from error


def _timing(result: Segmented) -> tuple[float | None, dict[str, float] | None]:
    if result.work is None:
        return None, None
    stages = {name: round(1000 * seconds, 3) for name, seconds in result.work.stages_s.items()}
    return round(1000 * (result.work.ended_s - result.frame.time_s), 3), stages


def _made_by_a_run(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return tuple(key for key in json.loads(file.readline()) if key != "position") == OLDER_KEYS
    except (ValueError, TypeError):
        return False
