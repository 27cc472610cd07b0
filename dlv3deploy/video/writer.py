"""The pipeline's last step: the overlay is drawn and the sink written, beside inference where the sink allows it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from dlv3deploy.core.interrupts import Noted, interrupts_noted
from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.sink import Segmented, Sink

if TYPE_CHECKING:
    from typing_extensions import Self

RESULTS_WAITING = 4
LOOK_EVERY_S = 0.1  # for signals, while the thread finishes


class Writer(ABC):
    """Hands results to a sink, and at the end of its `with` block writes what waits and closes the sink, whatever went wrong.

    An error met in doing so is raised, unless the block itself ended with one. `interrupted` says that Ctrl-C came meanwhile.
    """

    def __init__(self, sink: Sink, overlay: Overlay) -> None:
        self.interrupted = False
        self._sink, self._overlay = sink, overlay

    @abstractmethod
    def write(self, result: Segmented) -> None:
        """Take a result without a picture. Raises what an earlier or this write to the sink raised."""

    @abstractmethod
    def _finish(self, noted: Noted) -> None:
        """Write what waits, close the sink, raise what writing or closing raised."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with interrupts_noted() as noted:
            try:
                self._finish(noted)
            except Exception:
                if error is None:
                    raise
            finally:
                self.interrupted = noted.count > 0

    def _deliver(self, result: Segmented) -> None:
        if self._sink.wants_overlay:
            result = replace(result, picture=self._overlay(result.frame.pixels, result.mask))
        self._sink.write(result)


class DirectWriter(Writer):
    """For sinks that want the calling thread."""

    def write(self, result: Segmented) -> None:
        self._deliver(result)

    def _finish(self, noted: Noted) -> None:  # noqa: ARG002 (nothing waits here that a second Ctrl-C could leave out)
        self._sink.close()


class QueuedWriter(Writer):
    """Writes in a thread of its own, `RESULTS_WAITING` results behind at most; then `write` waits.

    The thread closes the sink as well. A second Ctrl-C while it finishes leaves out what waits, but completes the file.
    """

    def __init__(self, sink: Sink, overlay: Overlay) -> None:
        super().__init__(sink, overlay)
        self._results: deque[Segmented] = deque()
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._finishing = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def write(self, result: Segmented) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._error or len(self._results) < RESULTS_WAITING)
            if self._error is not None:
                raise self._error
            self._results.append(result)
            self._changed.notify_all()

    def _finish(self, noted: Noted) -> None:
        with self._changed:
            self._finishing = True
            self._changed.notify_all()
        while not self._done.wait(LOOK_EVERY_S):
            if noted.count > 1:
                with self._changed:
                    self._results.clear()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            try:
                while (result := self._next()) is not None:
                    self._deliver(result)
            finally:
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
            result = self._results.popleft() if self._results else None
            self._changed.notify_all()
            return result


def writer_for(sink: Sink, overlay: Overlay) -> Writer:
    return DirectWriter(sink, overlay) if sink.wants_calling_thread else QueuedWriter(sink, overlay)
