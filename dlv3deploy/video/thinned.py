"""Every so many-th frame of a source, for who needs no more."""

from __future__ import annotations

from dlv3deploy.video.frames import CapturedFrame, Source


class ThinnedSource(Source):
    """Frames 0, `every`, 2·`every`, … of `source`, with their own indices; the ones between are read and left out.

    A live source is drained all the same, so that none of its frames waits and grows old.
    """

    def __init__(self, source: Source, every: int) -> None:
        self._source, self._every = source, every
        self.live, self.size, self.paths = source.live, source.size, source.paths
        self.truth_classes, self.silence_s = source.truth_classes, source.silence_s * every
        self.fps = None if source.fps is None else source.fps / every
        self.frame_count = None if source.frame_count is None else -(-source.frame_count // every)

    def read(self) -> CapturedFrame | None:
        while (frame := self._source.read()) is not None:
            if frame.index % self._every == 0:
                return frame
        return None

    @property
    def failed(self) -> int:  # type: ignore[override]  # counted by the source itself
        return self._source.failed

    @property
    def reconnects(self) -> int:  # type: ignore[override]  # counted by the source itself
        return self._source.reconnects

    def close(self) -> None:
        self._source.close()
