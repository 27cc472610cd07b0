"""One picture: the frame with its mask drawn over it."""

from __future__ import annotations

from pathlib import Path

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import write_frame
from dlv3deploy.video.sink import Segmented, Sink


class PictureFile(Sink):
    """Raises UserError at a second result: a picture holds one."""

    wants_overlay = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = False

    def write(self, result: Segmented) -> None:
        if self._written:
            raise UserError(
                str(self._path),
                "a picture holds one frame (the first is written), and the source has more",
                "end the name in .mp4 for a video, name a folder for masks, or take one frame: --max-frames 1",
            )
        write_frame(self._path, result.shown())
        self._written = True

    def close(self) -> None:
        """Every write is complete in itself."""
