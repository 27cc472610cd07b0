"""Pictures on disk as a source: one, a folder's, or those that a pattern matches."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Frame, read_frame
from dlv3deploy.core.progress import say
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.quiet import silence_opencv
from dlv3deploy.video.source import SourceAddress


class PictureSource(Source):
    """The pictures in the order of their names; `index` is a picture's place in that order.

    Among several, one that cannot be read is reported, counted and left out. Raises UserError when none can be.
    """

    live = False
    fps = None

    def __init__(self, address: SourceAddress) -> None:
        silence_opencv()
        self.paths = address.paths
        self.frame_count = len(address.paths)
        self._text = address.text
        self._names = mask_names(address.paths)
        self._next = self.failed = 0
        self._closed = False
        self._first = self._read()
        if self._first is None:
            raise UserError(
                address.text, f"none of its {self.frame_count} pictures can be read", "supply pictures that open elsewhere"
            )
        height, width = self._first.pixels.shape[:2]
        self.size = height, width

    def read(self) -> CapturedFrame | None:
        if self._closed:
            return None
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return self._read()

    def _read(self) -> CapturedFrame | None:
        while self._next < len(self.paths):
            index = self._next
            self._next += 1
            pixels = self._pixels(self.paths[index])
            if pixels is not None:
                return CapturedFrame(pixels, index, time.monotonic(), self._names[index])
        if self.failed and not self._closed:
            say(f"{self._text}: {self.failed} of {len(self.paths)} pictures could not be read and were left out")
        self._closed = True
        return None

    def _pixels(self, path: Path) -> Frame | None:
        try:
            return read_frame(path)
        except UserError as error:
            if len(self.paths) == 1:
                raise
            say(f"left out: {error.given}: {error.rule}")
            self.failed += 1
            return None

    def close(self) -> None:
        self._closed = True


def mask_names(paths: tuple[Path, ...]) -> tuple[str, ...]:
    """The stem of each path; where two share one, the rest of the path is added: `a.jpg`, `b/a.jpg` → `a_jpg`, `b_a_jpg`."""
    shared = {stem for stem, count in Counter(path.stem for path in paths).items() if count > 1}
    if not shared:
        return tuple(path.stem for path in paths)
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return tuple(
        "_".join(path.absolute().relative_to(root).parts).replace(".", "_") if path.stem in shared else path.stem
        for path in paths
    )
