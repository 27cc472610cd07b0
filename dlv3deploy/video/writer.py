"""The pipeline's last step: the overlay is drawn and the sink written, beside inference where the sink allows it."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.interrupts import Noted, interrupts_noted
from dlv3deploy.core.progress import say
from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.sink import Segmented, Sink

if TYPE_CHECKING:
    from typing_extensions import Self

RESULTS_WAITING = 4
LOOK_EVERY_S = 0.05  # for signals, while the thread finishes
WRITE_LIMIT_S = 30.0  # for one result; a sink that takes longer is stuck
HURRIED_LIMIT_S = 0.8  # for one result once the run is interrupted
SAY_AFTER_S = 1.0  # that closing goes on


class Writer(ABC):
    """Hands results to a sink, and at the end of its `with` block writes what waits and closes the sink, whatever went wrong.

    An error met in doing so is raised, unless the block itself ended with one. `interrupted` says that Ctrl-C came meanwhile;
    `hurried` is set by whoever was interrupted before.
    """

    room: int = 1_000_000  # results that `write` takes without waiting

    def __init__(self, sink: Sink, overlay: Overlay) -> None:
        self.interrupted = self.hurried = False
        self._sink, self._overlay = sink, overlay

    @abstractmethod
    def write(self, result: Segmented) -> None:
        """Take a result without a picture. Raises what an earlier or this write to the sink raised."""

    def check(self) -> None:  # noqa: B027 (most have nothing to tell)
        """Raise what writing has met since, and UserError for a sink that is stuck."""

    def begin_to_finish(self) -> None:  # noqa: B027 (as above)
        """Let it write what waits and close the sink, without waiting for that."""

    @abstractmethod
    def finish(self, noted: Noted) -> None:
        """Write what waits, close the sink, raise what writing or closing raised. Calling it twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with interrupts_noted() as noted:
            try:
                self.finish(noted)
            except Exception:
                if error is None:
                    raise
            finally:
                self.interrupted = noted.count > 0

    def _deliver(self, result: Segmented) -> None:
        if self._sink.wants_overlay:
            picture = self._overlay(result.frame.pixels, result.mask, result.painted)
            result = replace(result, picture=picture, painted=None)
        self._sink.write(result)


class DirectWriter(Writer):
    """For sinks that want the calling thread."""

    def write(self, result: Segmented) -> None:
        self._deliver(result)

    def finish(self, noted: Noted) -> None:  # noqa: ARG002 (nothing waits here that a second Ctrl-C could leave out)
        self._sink.close()


class QueuedWriter(Writer):
    """Writes in a thread of its own, `RESULTS_WAITING` results behind at most; then `write` waits. `changed` tells of room.

    The thread closes the sink as well. A second Ctrl-C while it finishes leaves out what waits, but completes the file; one
    that comes after it was said that closing takes its time leaves that too. A sink that takes no result for `WRITE_LIMIT_S`,
    and of an interrupted run for `HURRIED_LIMIT_S`, is left to itself: UserError.
    """

    def __init__(self, sink: Sink, overlay: Overlay, changed: threading.Condition | None = None) -> None:
        super().__init__(sink, overlay)
        self._results: deque[Segmented] = deque()
        self._changed = changed or threading.Condition()
        self._error: Exception | None = None
        self._finishing = self._closing = self._is_busy = False
        self._asked_s: float | None = None  # when it was to finish
        self._took_s = time.monotonic()  # when the sink was last ready for a result
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)  # it may be stuck for good

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    @property
    def room(self) -> int:  # type: ignore[override]  # of the writers this one alone has to look
        """Asked with `changed` held."""
        return RESULTS_WAITING - len(self._results)

    def check(self) -> None:
        with self._changed:
            if self._error is not None:
                raise self._error
            if self._is_busy and self._left_s() <= 0:
                self._give_up()

    def _give_up(self) -> None:
        self._finishing = self.hurried = True
        self._results.clear()
        raise _stuck(WRITE_LIMIT_S)

    def _left_s(self) -> float:
        """Until a sink that is busy counts as stuck."""
        return self._took_s + WRITE_LIMIT_S - time.monotonic()

    def write(self, result: Segmented) -> None:
        with self._changed:
            limit_s = max(0.0, self._left_s())
            if not self._changed.wait_for(lambda: self._error or len(self._results) < RESULTS_WAITING, limit_s):
                self._give_up()
            if self._error is not None:
                raise self._error
            if not self._results:
                self._took_s = time.monotonic()
            self._results.append(result)
            self._changed.notify_all()

    def begin_to_finish(self) -> None:
        with self._changed:
            self._finishing, self._asked_s = True, self._asked_s or time.monotonic()
            self._changed.notify_all()

    def finish(self, noted: Noted) -> None:
        self.begin_to_finish()
        said_at: int | None = None  # how many signals had come
        started_s = self._asked_s or time.monotonic()
        while not self._done.wait(LOOK_EVERY_S):
            if noted.count > 1:
                with self._changed:
                    self._results.clear()
            limit_s = HURRIED_LIMIT_S if self.hurried or noted.count else WRITE_LIMIT_S
            if not self._closing:
                if time.monotonic() - max(self._took_s, started_s) > limit_s:
                    raise _stuck(limit_s)
            elif said_at is None and time.monotonic() - started_s > SAY_AFTER_S:
                said_at = noted.count
                say("completing what was written; Ctrl-C leaves it as it is")
            elif said_at is not None and noted.count > said_at:
                say("left as it was")
                return
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            try:
                while (result := self._next()) is not None:
                    self._deliver(result)
                    self._took_s, self._is_busy = time.monotonic(), False
            finally:
                self._closing = True
                self._sink.close()
        except Exception as error:  # noqa: BLE001 (handed to the caller's thread, which raises it)
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._done.set()

    def _next(self) -> Segmented | None:
        with self._changed:
            self._changed.wait_for(lambda: self._results or self._finishing)
            self._took_s = time.monotonic()
            result = self._results.popleft() if self._results else None
            self._is_busy = result is not None
            self._changed.notify_all()
            return result


def _stuck(limit_s: float) -> UserError:
    return UserError(
        "the sink",
        f"has not taken a frame for {limit_s:.3g} s",
        "check the disk, network or screen behind it",
    )


def writer_for(sink: Sink, overlay: Overlay, changed: threading.Condition | None = None) -> Writer:
    return DirectWriter(sink, overlay) if sink.wants_calling_thread else QueuedWriter(sink, overlay, changed)
