"""A drive through a drawn town as a source: no camera and no file is needed, and the true mask of every frame is known."""

from __future__ import annotations

import time

from dlv3deploy.core.errors import UserError
from dlv3deploy.scenes import ROAD_SCENE, Drive
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.source import SourceAddress
from dlv3deploy.video.time_code import stamp

SIZE, FPS, SECONDS = "360x640", "10", "10"


class DrawnSource(Source):
    """`test://SEED?size=HEIGHTxWIDTH&fps=N&seconds=S&live=yes`: frame i is the view i/fps seconds after the start.

    A live one sends the view of the moment, as a camera does, as often as it can be drawn; with `code=yes` its frames carry
    when that was. Raises UserError for a size that cannot be drawn.
    """

    truth_classes = ROAD_SCENE

    def __init__(self, address: SourceAddress) -> None:
        settings = address.settings
        height, width = (int(side) for side in settings.get("size", SIZE).split("x"))
        self._rate = float(settings.get("fps", FPS))
        self.live, self.fps = settings.get("live", "no") == "yes", self._rate
        self._is_coded = settings.get("code", "no") == "yes"
        self.size, count = (height, width), round(float(settings.get("seconds", SECONDS)) * self._rate)
        self.frame_count = None if self.live else max(1, count)
        try:
            self._drive = Drive(address.device, height, width)
            self._first: CapturedFrame | None = self._view(0)
        except UserError as error:
            raise UserError(address.text, f"{error.given}: {error.rule}", error.remedy) from error
        self._frames, self._next, self._closed = max(1, count), 0, False
        self._started_s = time.monotonic()

    def read(self) -> CapturedFrame | None:
        if self.live:
            elapsed = (time.monotonic() - self._started_s) * self._rate
            if elapsed < self._next:
                time.sleep((self._next - elapsed) / self._rate)
            self._next = max(self._next, int(elapsed))
        index = self._next
        if self._closed or index >= self._frames:
            return None
        self._next += 1
        first, self._first = self._first, None
        return first if first is not None and index == 0 else self._view(index)

    def _view(self, index: int) -> CapturedFrame:
        captured_s = time.monotonic()
        frame, truth = self._drive.at(index / self._rate)
        if self._is_coded:
            stamp(frame, captured_s)
        return CapturedFrame(frame, index, captured_s, f"drawn_{index:06d}", truth)

    def close(self) -> None:
        self._closed = True
