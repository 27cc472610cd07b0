"""The file that a recording grows in: it plays at any time, and takes the place of the old one when it is whole."""

from __future__ import annotations

import glob
import secrets
import shutil
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
FULL = "most likely because the disk or quota is full"


class GrowingVideo:
    """Frames of one size (height, width; both even) at `fps`, in a file of its own beside `path`.

    A process that is killed leaves that file, `STEM.TOKEN.partial.mkv` or `.avi`, with what FFmpeg had handed on, which it does
    in blocks of 256 KiB to 1 MiB: of a quiet picture the last half a minute may be missing. So does a disk that fills, and the
    UserError of `write` or `complete` then names it. Raises UserError when `path` cannot be written.
    With OpenCV before 4.9 an `.mp4` grows as itself and is lost with a kill.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps, self._frames = path, fps, 0
        self._writer: cv2.VideoWriter | None = None
        target = check_target(path)
        suffix = _grows_as(path.suffix.lower())
        for left in sorted(target.parent.glob(f"{glob.escape(target.stem)}.{'?' * 2 * TOKEN_BYTES}.partial{suffix}")):
            with suppress(OSError):  # another run may just have completed it
                if left.stat().st_size:
                    say(f"{left}: of a run that was killed, or that still goes on; it plays as it is")
        self._partial = target.with_name(f"{target.stem}.{secrets.token_hex(TOKEN_BYTES)}.partial{suffix}")
        try:
            self._partial.touch(exist_ok=False)
        except OSError as error:
            raise write_error(path, error) from error

    def write(self, picture: Frame) -> None:
        if self._writer is None:
            self._writer = self._open(picture)
        if self._writer.write(picture) is False:  # OpenCV 4 returns nothing here; there a full disk is found at the end
            self._release()
            raise self._incomplete(f"the encoder failed after {self._frames} frames, {FULL}")
        self._frames += 1

    def complete(self) -> None:
        """Put what was written in the place of `path`; without a frame, leave everything as it was."""
        self._release()
        if self._frames == 0:
            self._partial.unlink(missing_ok=True)
            return
        found = frames_in(self._partial)
        if found < self._frames:
            raise self._incomplete(f"holds {found} of the {self._frames} frames that were written, {FULL}")
        try:
            if self._partial.suffix == self._path.suffix.lower():
                put_in_place(self._partial, self._path)
            else:
                with replacing(self._path) as fresh:
                    repack(self._partial, fresh, self._fps)
                    found = frames_in(fresh)
                    if found < self._frames:
                        raise CheckFailed(f"holds {found} of the {self._frames} frames that were written, {FULL}")
                self._partial.unlink()
        except OSError as error:
            raise self._incomplete(f"could not be put in its place ({error.strerror})") from error
        except UserError as error:
            raise self._incomplete(error.rule) from error
        except CheckFailed as error:
            raise self._incomplete(str(error)) from error

    def _open(self, picture: Frame) -> cv2.VideoWriter:
        height, width = picture.shape[:2]
        writer = video_writer(self._partial, CODECS[self._partial.suffix], self._fps, (height, width))
        if not writer.isOpened():
            self._partial.unlink(missing_ok=True)
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
        size = 0
        with suppress(OSError):
            size = self._partial.stat().st_size
        if size:
            kept += f"; {self._partial} has what could be written"
        return UserError(
            str(self._path),
            f"{what} ({free_mb:.0f} MB free){kept}",
            "free some space, or write elsewhere",
        )


def _grows_as(suffix: str) -> str:
    """An MP4 file plays only with the index that is written last, so it is repacked from another container."""
    import cv2

    return ".mkv" if suffix == ".mp4" and hasattr(cv2, "VIDEOWRITER_PROP_RAW_VIDEO") else suffix


def video_writer(path: Path, codec: str, fps: float, size: tuple[int, int], options: tuple[int, ...] = ()) -> cv2.VideoWriter:
    """OpenCV's writer for frames of `size` (height, width), by FFmpeg."""
    import cv2

    code = cv2.VideoWriter.fourcc(*codec)
    return cv2.VideoWriter(str(path.absolute()), cv2.CAP_FFMPEG, code, fps, size[::-1], list(options))


def repack(video: Path, target: Path, fps: float) -> None:
    """The compressed frames of an MPEG-4 `video` in the container that `target`'s suffix names: nothing is decoded."""
    import cv2

    reader = cv2.VideoCapture(str(video.absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    try:
        size = int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(reader.get(cv2.CAP_PROP_FRAME_WIDTH))
        _, head = reader.retrieve(None, int(reader.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))
        writer = video_writer(target, CODECS[target.suffix.lower()], fps, size, (cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1))
        is_there, packet = reader.read()
        if is_there and head is not None:
            packet = _joined(head, packet)  # the decoder's set-up goes before what needs it
        while is_there:
            writer.set(cv2.VIDEOWRITER_PROP_KEY_FLAG, reader.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME))
            writer.write(packet)
            is_there, packet = reader.read()
        writer.release()
    finally:
        reader.release()


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
