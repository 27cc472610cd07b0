"""Video files: every result a frame, or every result as long as it lasted."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Frame
from dlv3deploy.video.growing import GrowingVideo
from dlv3deploy.video.quiet import silence_opencv
from dlv3deploy.video.sink import Segmented, Sink

USUAL_FPS = 25.0  # for pictures and for cameras that state no rate
LONGEST_GAP_S = 10.0


class Video(Protocol):
    """What a recording hands its pictures to; all are of one size, both sides even."""

    def write(self, picture: Frame) -> None: ...

    def complete(self) -> None: ...


class VideoRecording(Sink):
    """Every result becomes one frame, played at `fps`; a file's frames that last longer than that are shown as long.

    The first frame fixes the size (an odd side loses its last row or column, as the codecs ask for even ones); frames of
    another size are letterboxed to it. A file that was there stays until `close` has read the new one back and found every
    frame in it. Without a frame nothing is replaced. Raises UserError when the file cannot be made, and, from `write` or
    `close`, when it does not hold what was written; see `GrowingVideo` for what then remains.
    """

    wants_overlay = True

    def __init__(self, to: Path | Video, fps: float | None) -> None:
        silence_opencv()
        self._fps = fps or USUAL_FPS
        self._video: Video | None = GrowingVideo(to, self._fps) if isinstance(to, Path) else to
        self._size: tuple[int, int] | None = None
        self._last: Frame | None = None
        self._written, self._begins_s = 0, 0.0  # frames in the file, and the position that its first one has

    def write(self, result: Segmented) -> None:
        picture = result.shown()
        for _ in range(self._lag(result.frame.position_s)):
            self._encode(self._last if self._last is not None else picture)
        self._encode(picture)
        self._last = picture

    def _lag(self, position_s: float | None) -> int:
        """How many frames are missing before one at this position; a single one is an uneven clock."""
        if position_s is None:
            return 0
        lag = self._ahead(position_s)
        longest = round(LONGEST_GAP_S * self._fps)
        if lag > longest:
            self._begins_s += (lag - longest) / self._fps
        return min(lag, longest) if lag > 1 else 0

    def _ahead(self, position_s: float) -> int:
        """By how many frames this position is ahead of what was written."""
        if self._written == 0:
            self._begins_s = position_s
        return round((position_s - self._begins_s) * self._fps) - self._written

    def _encode(self, picture: Frame) -> None:
        height, width = picture.shape[:2]
        self._size = self._size or (max(2, height // 2 * 2), max(2, width // 2 * 2))
        if self._video is None:
            return
        self._written += 1
        try:
            self._video.write(fitted(picture, self._size))
        except UserError:
            self._video = None
            raise

    def close(self) -> None:
        video, self._video = self._video, None
        if video is not None:
            video.complete()


class LiveRecording(VideoRecording):
    """Plays as fast as things happened: every frame is shown until the next one was captured.

    The file's frames are slots of 1/fps seconds. Of two results in one slot the later is kept; a gap longer than
    `LONGEST_GAP_S` is cut to that.
    """

    def __init__(self, to: Path | Video, fps: float | None) -> None:
        super().__init__(to, fps)
        self._shown: Frame | None = None  # the picture whose slots are not written yet
        self._slot = 0  # its first slot
        self._start_s = 0.0

    def write(self, result: Segmented) -> None:
        time_s = result.frame.time_s
        if self._shown is None:
            self._start_s = time_s
        slot = round((time_s - self._start_s) * self._fps)
        longest = round(LONGEST_GAP_S * self._fps)
        if slot - self._slot > longest:
            self._start_s += (slot - self._slot - longest) / self._fps
            slot = self._slot + longest
        if self._shown is not None:
            for _ in range(self._slot, slot):
                self._encode(self._shown)
        self._shown, self._slot = result.shown(), max(slot, self._slot)

    def close(self) -> None:
        if self._shown is not None and self._video is not None:
            shown, self._shown = self._shown, None
            self._encode(shown)
        super().close()


def fitted(picture: Frame, size: tuple[int, int]) -> Frame:
    """`picture` at `size` (height, width): cropped by at most a row and a column, otherwise letterboxed on black."""
    import cv2

    height, width = size
    if 0 <= picture.shape[0] - height <= 1 and 0 <= picture.shape[1] - width <= 1:
        return np.ascontiguousarray(picture[:height, :width])
    scale = min(height / picture.shape[0], width / picture.shape[1])
    inner = (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale)))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[top : top + inner[0], left : left + inner[1]] = cv2.resize(picture, inner[::-1], interpolation=interpolation)
    return canvas
