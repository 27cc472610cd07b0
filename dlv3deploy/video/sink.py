"""What every sink of masks is, and `Tee`, which feeds several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.video.frames import CapturedFrame

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class FrameWork:
    """What a frame took, seconds by stage, `time.monotonic()` when its mask was ready, and how many were dropped so far."""

    stages_s: Mapping[str, float]
    ended_s: float
    dropped: int = 0


@dataclass(frozen=True)
class Segmented:
    """A frame, its mask (H×W class ids, the frame's size) and, when the sink `wants_overlay`, the mask drawn over the frame.

    `painted` is the frame with the mask's colours alone over it, where a device made that.
    """

    frame: CapturedFrame
    mask: Mask
    picture: Frame | None = None
    work: FrameWork | None = None
    painted: Frame | None = None

    def shown(self) -> Frame:
        """The picture for people; the bare frame when no overlay was made."""
        return self.frame.pixels if self.picture is None else self.picture


class Sink(ABC):
    """Takes results one by one. What was written counts only after `close`, which may raise UserError too.

    Sinks that show no picture leave `wants_overlay` False, so that none is drawn. A sink whose `wants_calling_thread` is True
    is written to from the thread that runs the pipeline, any other from a thread of its own. `stopped` turns True when the
    sink's user asks for the end.
    """

    wants_overlay = False
    wants_calling_thread = False
    stopped = False

    @abstractmethod
    def write(self, result: Segmented) -> None:
        """Take one result. Raises UserError when it cannot be kept; the sink may then only be closed."""

    @abstractmethod
    def close(self) -> None:
        """Complete what was written; calling it twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class NullSink(Sink):
    """Throws results away, for measuring."""

    def write(self, result: Segmented) -> None:
        pass

    def close(self) -> None:
        pass


class Tee(Sink):
    """Every result to each of several sinks. All are closed, even when one of them fails."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self.wants_overlay = any(sink.wants_overlay for sink in sinks)
        self.wants_calling_thread = any(sink.wants_calling_thread for sink in sinks)

    def write(self, result: Segmented) -> None:
        for sink in self._sinks:
            sink.write(result)
        self.stopped = any(sink.stopped for sink in self._sinks)

    def close(self) -> None:
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close)
