"""Video files, every frame in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import require_file
from dlv3deploy.core.progress import say
from dlv3deploy.video.decoded import DecodedSource
from dlv3deploy.video.frames import CapturedFrame
from dlv3deploy.video.quiet import silence_opencv
from dlv3deploy.video.source import SourceAddress

if TYPE_CHECKING:
    import cv2


class VideoFileSource(DecodedSource):
    """Raises UserError when the file is empty, is no video, or no frame of it can be decoded."""

    live = False
    _begins_s: float | None = None

    def __init__(self, address: SourceAddress) -> None:
        silence_opencv()
        import cv2

        path = require_file(address.paths[0], "give a video that plays elsewhere")
        super().__init__(path.stem)
        self.paths = (path,)
        self._text = address.text
        # The absolute path keeps FFmpeg from taking a name such as "cam:1.mp4" for a protocol.
        capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
        opened = capture.isOpened()
        if not self._begin(capture):
            rule = "is a video of which no frame can be decoded, it may be cut short" if opened else "is not a readable video"
            raise UserError(address.text, rule, "check that it plays elsewhere, or copy it again")

    def _position_s(self, capture: cv2.VideoCapture) -> float | None:
        """From the first frame on: frames may last differently long."""
        import cv2

        found_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self._begins_s is None:
            self._begins_s = found_s
        return found_s - self._begins_s if found_s >= self._begins_s else None

    def _at_end(self) -> CapturedFrame | None:
        if self.frame_count is not None and self._count < self.frame_count:
            self.failed = self.frame_count - self._count
            say(f"{self._text}: decoding ended after {self._count} frames, the file announces {self.frame_count}")
        self._release()  # so that a second read after the end does not say it again
        return None
