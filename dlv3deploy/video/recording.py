"""Video files: written beside the old file, checked, and only then put in its place."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing
from dlv3deploy.core.images import Frame
from dlv3deploy.video.quiet import silence_opencv
from dlv3deploy.video.sink import Segmented, Sink

if TYPE_CHECKING:
    import cv2

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
USUAL_FPS = 25.0  # for pictures and for cameras that state no rate
LONGEST_GAP_S = 10.0


class VideoRecording(Sink):
    """Every result becomes one frame, played at `fps`.

    The first frame fixes the size (an odd side loses its last row or column, as the codecs ask for even ones); frames of
    another size are letterboxed to it. A file that was there stays until `close` has read the new one back and found every
    frame in it. Without a frame nothing is replaced. Raises UserError when the file cannot be made, and, from `write` or
    `close`, when it does not hold what was written.
    """

    wants_overlay = True

    def __init__(self, path: Path, fps: float | None) -> None:
        silence_opencv()
        self._path, self._fps = path, fps or USUAL_FPS
        self._writer: cv2.VideoWriter | None = None
        self._size = 0, 0
        self._frames = 0
        self._replacing: AbstractContextManager[Path] | None = replacing(path)
        self._partial = self._replacing.__enter__()

    def write(self, result: Segmented) -> None:
        self._encode(result.shown())

    def _encode(self, picture: Frame) -> None:
        if self._writer is None:
            self._writer = self._open(picture)
        # OpenCV 4 returns nothing here; there a full disk is found at `close`.
        if self._writer.write(fitted(picture, self._size)) is False:
            self._discard()
            raise self._incomplete(f"the encoder failed after {self._frames} frames")
        self._frames += 1

    def close(self) -> None:
        if self._replacing is None:
            return
        if self._frames == 0 or self._writer is None:
            self._discard()
            return
        self._writer.release()
        self._writer = None
        found = frames_in(self._partial)
        if found < self._frames:
            self._discard()
            raise self._incomplete(f"holds {found} of the {self._frames} frames that were written")
        context, self._replacing = self._replacing, None
        context.__exit__(None, None, None)

    def _open(self, picture: Frame) -> cv2.VideoWriter:
        import cv2

        height, width = picture.shape[:2]
        self._size = max(2, height // 2 * 2), max(2, width // 2 * 2)
        code = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._partial.absolute()), cv2.CAP_FFMPEG, code, self._fps, self._size[::-1])
        if not writer.isOpened():
            self._discard()
            raise UserError(
                str(self._path),
                f"this OpenCV cannot encode {width}×{height} frames as {self._path.suffix}",
                f"try another suffix ({', '.join(CODECS)}), or a folder for masks",
            )
        return writer

    def _discard(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        if self._replacing is not None:
            context, self._replacing = self._replacing, None
            reason = _DiscardedError()
            with suppress(_DiscardedError):
                context.__exit__(type(reason), reason, None)

    def _incomplete(self, what: str) -> UserError:
        kept = "the file that was there is unchanged" if self._path.exists() else "nothing was kept"
        free_mb = shutil.disk_usage(self._path.parent).free / 1e6
        return UserError(
            str(self._path),
            f"{what}, most likely because the disk or quota is full ({free_mb:.0f} MB free); {kept}",
            "free some space, or write elsewhere",
        )


class LiveRecording(VideoRecording):
    """Plays as fast as things happened: every frame is shown until the next one was captured.

    The file's frames are slots of 1/fps seconds. Of two results in one slot the later is kept; a gap longer than
    `LONGEST_GAP_S` is cut to that.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        super().__init__(path, fps)
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
        if self._shown is not None and self._replacing is not None:
            shown, self._shown = self._shown, None
            self._encode(shown)
        super().close()


class _DiscardedError(Exception):
    """Makes `replacing` remove its temporary file."""


def frames_in(video: Path) -> int:
    """How many frames the container announces, when its last one can be decoded as well; otherwise 0 or less."""
    import cv2

    capture = cv2.VideoCapture(str(video.absolute()), cv2.CAP_FFMPEG)
    try:
        count = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        if count > 1:
            capture.set(cv2.CAP_PROP_POS_FRAMES, count - 1)
        return count if count > 0 and capture.read()[0] else 0
    finally:
        capture.release()


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
