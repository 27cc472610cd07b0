"""Feed: a thread that reads a source while the caller works on the frame before."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

from dlv3deploy.core.errors import UserError
from dlv3deploy.video.frames import CapturedFrame, Source

if TYPE_CHECKING:
    from typing_extensions import Self

CLOSE_WAIT_S = 0.5


class Feed(ABC):
    """Frames of `source`, read ahead; a subclass decides in `_offer` what happens when the caller is slower than the source.

    `dropped` counts the frames that were captured and never handed out. The source stays the caller's to close. An error of
    the source is raised by `read` after the frames captured before it. Feeds that are read together share `changed`.
    """

    def __init__(self, source: Source, changed: threading.Condition | None = None) -> None:
        self.dropped = 0
        self.source = source
        self._frames: deque[CapturedFrame] = deque()
        self._changed = changed or threading.Condition()
        self._error: Exception | None = None
        self._ended = self._closing = False
        self._thread = threading.Thread(target=self._run, name="frame reader", daemon=True)
        self._thread.start()

    @abstractmethod
    def _offer(self, frame: CapturedFrame) -> None:
        """Called in the reader thread with `_changed` held."""

    @property
    def is_ready(self) -> bool:
        """Whether `read` would not wait; asked with `changed` held."""
        return bool(self._frames) or self._ended

    def read(self) -> CapturedFrame | None:
        """The next frame, None at the source's end. Raises what the source raised, and UserError when it is stuck."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.is_ready, timeout=self.source.silence_s):
                raise gone_silent(self.source)
            if self._frames:
                frame = self._frames.popleft()
                self._changed.notify_all()
                return frame
            if self._error is not None:
                raise self._error
            return None

    def stop(self) -> None:
        """Ask the thread to end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self, wait_s: float | None = None) -> None:
        """End the thread. When the source is stuck in a read, the thread is left to end with it or with the process."""
        self.stop()
        self._thread.join(CLOSE_WAIT_S if wait_s is None else wait_s)

    def _run(self) -> None:
        try:
            while not self._closing and (frame := self.source.read()) is not None:
                with self._changed:
                    self._offer(frame)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 (handed to the caller's thread, which raises it)
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def gone_silent(source: Source) -> UserError:
    """What is said of a source that has sent nothing for its `silence_s`."""
    return UserError(
        "the source",
        f"sent nothing for {source.silence_s:.0f} s and does not answer",
        "unplug the camera or restart its server, and start again",
    )
