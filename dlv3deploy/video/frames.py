"""What every source of frames is: a context manager that hands out captured frames one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.images import Frame, Mask

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class CapturedFrame:
    """One frame, H×W×3 BGR uint8, owned by whoever read it.

    `index` counts what the source captured, so that a gap shows a dropped frame. `time_s` is `time.monotonic()` when the frame
    was captured, `position_s` where it lies in its file, counted from the first frame, None where that is not known; `name`,
    without suffix and unique within its source, is what its mask's file is called. `truth` is the mask that it should get,
    where the source knows it.
    """

    pixels: Frame
    index: int
    time_s: float
    name: str
    truth: Mask | None = None
    position_s: float | None = None


class Source(ABC):
    """An opened source; at least one frame was read from it already, so `size` is known.

    `live` sources go on whether or not anyone reads. `fps` is the rate that the source states, None where it states none;
    `size` is (height, width) of the first frame, `frame_count` None where no one can know; `paths` are the files it reads,
    `truth_classes` what the ids in its frames' true masks mean, where it has them. `silence_s` is how long `read` may take
    before something must be stuck; `failed` counts frames that could not be decoded, `reconnects` how often it was lost and
    found again.
    `read` may be called from one thread, and `close` from any other at any time.
    """

    live: bool
    fps: float | None
    size: tuple[int, int]
    frame_count: int | None
    truth_classes: Classes | None = None
    paths: tuple[Path, ...] = ()
    silence_s = 60.0
    failed = 0
    reconnects = 0

    @abstractmethod
    def read(self) -> CapturedFrame | None:
        """The next frame, or None at the end and after `close`. Raises UserError when the source fails."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the device, file or connection, within about a second; calling it twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
