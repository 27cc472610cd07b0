"""The file that a recording grows in: it plays at any time, and takes the place of the old one when it is whole."""

from __future__ import annotations

import glob
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import check_target, put_in_place, replacing, write_error
from dlv3deploy.core.images import Frame
from dlv3deploy.core.progress import say

if TYPE_CHECKING:
    import cv2

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
TOKEN_BYTES = 4
LEAST_HELD_S, MOST_HELD_S = 2.0, 10.0  # how long frames may be missing of a file whose writer is killed
FULL = "most likely because the disk or quota is full"


class GrowingVideo:
    """Frames of one size (height, width; both even) at `fps`, in files of its own beside `path`.

    A process that is killed leaves those, `STEM.TOKEN.partial.mkv` (or `.avi`), perhaps `STEM.TOKEN-0002.partial.mkv` and so
    on, and they play. FFmpeg hands on blocks of 256 KiB to 1 MiB, which of a quiet picture is half a minute; so where it has
    kept frames for two seconds, later for up to ten, the file is ended and the next one begun. A disk that fills leaves them
    too, and the UserError of `write` or `complete` then names them. Raises UserError when `path` cannot be written.
    With OpenCV before 4.9 nothing can be joined: there is one file, and an `.mp4` grows as itself and is lost with a kill.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps, self._frames = path, fps, 0
        self._writer: cv2.VideoWriter | None = None
        target = check_target(path)
        suffix = _grows_as(path.suffix.lower())
        _say_what_is_left(target, suffix)
        self._stem = f"{target.stem}.{secrets.token_hex(TOKEN_BYTES)}"
        self._pieces = [target.with_name(f"{self._stem}.partial{suffix}")]
        self._begun_s = self._moved_s = time.monotonic()
        self._handed_on = 0  # bytes of the last piece
        try:
            self._pieces[0].touch(exist_ok=False)
        except OSError as error:
            raise write_error(path, error) from error

    def write(self, picture: Frame) -> None:
        if self._writer is not None and self._is_held_back():
            self._release()
            first = self._pieces[0]
            self._pieces.append(first.with_name(f"{self._stem}-{len(self._pieces) + 1:04}.partial{first.suffix}"))
        if self._writer is None:
            self._writer = self._open(picture)
            self._handed_on, self._moved_s = 0, time.monotonic()
        if self._writer.write(picture) is False:  # OpenCV 4 returns nothing here; there a full disk is found at the end
            self._release()
            raise self._incomplete(f"the encoder failed after {self._frames} frames, {FULL}")
        self._frames += 1

    def _is_held_back(self) -> bool:
        """Whether FFmpeg has kept frames to itself for too long: a tenth of the recording's time, within bounds."""
        now_s, handed_on = time.monotonic(), _size_of(self._pieces[-1])
        if handed_on != self._handed_on:
            self._handed_on, self._moved_s = handed_on, now_s
        held_s = now_s - self._moved_s
        return _can_join() and held_s > min(MOST_HELD_S, max(LEAST_HELD_S, (now_s - self._begun_s) / 10))

    def complete(self) -> None:
        """Put what was written in the place of `path`; without a frame, leave everything as it was."""
        self._release()
        if self._frames == 0:
            self._pieces[0].unlink(missing_ok=True)
            return
        found = sum(map(frames_in, self._pieces))
        if found < self._frames:
            raise self._incomplete(f"holds {found} of the {self._frames} frames that were written, {FULL}")
        try:
            if len(self._pieces) == 1 and self._pieces[0].suffix == self._path.suffix.lower():
                put_in_place(self._pieces[0], self._path)
            else:
                with replacing(self._path) as fresh:
                    join(self._pieces, fresh, self._fps)
                    found = frames_in(fresh)
                    if found < self._frames:
                        raise CheckFailed(f"holds {found} of the {self._frames} frames that were written, {FULL}")
                for piece in self._pieces:
                    piece.unlink(missing_ok=True)
        except OSError as error:
            raise self._incomplete(f"could not be put in its place ({error.strerror})") from error
        except UserError as error:
            raise self._incomplete(error.rule) from error
        except CheckFailed as error:
            raise self._incomplete(str(error)) from error

    def _open(self, picture: Frame) -> cv2.VideoWriter:
        height, width = picture.shape[:2]
        piece = self._pieces[-1]
        writer = video_writer(piece, CODECS[piece.suffix], self._fps, (height, width))
        if not writer.isOpened():
            piece.unlink(missing_ok=True)
            if len(self._pieces) > 1:
                self._pieces.pop()
                raise self._incomplete(f"could not go on after {self._frames} frames, {FULL}")
            raise UserError(
                str(self._path),
                f"this OpenCV cannot encode {width}×{height} frames as {self._path.suffix}",
                f"try another suffix ({', '.join(CODECS)}), or a folder for masks",
            )
        return writer

    def _release(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _incomplete(self, what: str) -> UserError:
        kept = "; the file that was there is unchanged" if self._path.exists() else ""
        free_mb = shutil.disk_usage(self._path.parent).free / 1e6
        if written := [piece for piece in self._pieces if _size_of(piece)]:
            kept += f"; {_named(written)} what could be written"
        return UserError(
            str(self._path),
            f"{what} ({free_mb:.0f} MB free){kept}",
            "free some space, or write elsewhere",
        )


def _size_of(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _named(pieces: Sequence[Path]) -> str:
    return f"{pieces[0]} has" if len(pieces) == 1 else f"{pieces[0]} and {len(pieces) - 1} that follow it have"


def _say_what_is_left(target: Path, suffix: str) -> None:
    """One line for each run that left pieces of a recording of `target`."""
    stem, token = glob.escape(target.stem), "?" * 2 * TOKEN_BYTES
    for first in sorted(target.parent.glob(f"{stem}.{token}.partial{suffix}")):
        run = glob.escape(first.name.removesuffix(f".partial{suffix}"))
        if _size_of(first):  # none where another run has just completed it
            more = len(list(target.parent.glob(f"{run}-*.partial{suffix}")))
            pieces = f" (and {more} that follow it)" if more else ""
            say(f"{first}{pieces}: of a run that was killed, or that still goes on; it plays as it is")


def _can_join() -> bool:
    import cv2

    return hasattr(cv2, "VIDEOWRITER_PROP_RAW_VIDEO")


def _grows_as(suffix: str) -> str:
    """An MP4 file plays only with the index that is written last, so it is repacked from another container."""
    return ".mkv" if suffix == ".mp4" and _can_join() else suffix


def video_writer(path: Path, codec: str, fps: float, size: tuple[int, int], options: tuple[int, ...] = ()) -> cv2.VideoWriter:
    """OpenCV's writer for frames of `size` (height, width), by FFmpeg."""
    import cv2

    code = cv2.VideoWriter.fourcc(*codec)
    return cv2.VideoWriter(str(path.absolute()), cv2.CAP_FFMPEG, code, fps, size[::-1], list(options))


def join(videos: Sequence[Path], target: Path, fps: float) -> None:
    """The compressed frames of `videos`, one after another, in the container that `target`'s suffix names.

    Nothing is decoded; one encoder made them all, with the same settings.
    """
    import cv2

    writer: cv2.VideoWriter | None = None
    for video in videos:
        reader = cv2.VideoCapture(str(video.absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
        try:
            size = int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(reader.get(cv2.CAP_PROP_FRAME_WIDTH))
            _, head = reader.retrieve(None, int(reader.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))
            if writer is None:
                codec, options = CODECS[target.suffix.lower()], (cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1)
                writer = video_writer(target, codec, fps, size, options)
            is_there, packet = reader.read()
            if is_there and head is not None:
                packet = _joined(head, packet)  # the decoder's set-up goes before what needs it
            while is_there:
                writer.set(cv2.VIDEOWRITER_PROP_KEY_FLAG, reader.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME))
                writer.write(packet)
                is_there, packet = reader.read()
        finally:
            reader.release()
    if writer is not None:
        writer.release()


def _joined(head: Any, packet: Any) -> Any:
    return np.concatenate([head.ravel(), packet.ravel()])[None]


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
