"""Repeated: work that comes again and again is queued as one graph, which takes a call in place of one for each kernel."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.progress import say
from dlv3deploy.engines.cuda.device import Graph, Stream

MOST = 128  # kinds of work that are known at once


class Repeated:
    """Of one stream. The first time work is queued as it is, which is when libraries prepare themselves; the second time it is
    captured, and the graph is queued from then on. Where that fails, it goes on call by call, which is said."""

    def __init__(self, stream: Stream, name: str) -> None:
        self._stream, self._name = stream, name
        self._graphs: dict[Hashable, Graph | None] = {}  # None: seen once
        self._captures = True

    def queue(self, key: Hashable, work: Callable[[], None]) -> None:
        """Queue `work`, which queues the same kernels at the same addresses whenever it has this key, until `forget`."""
        graph = self._graphs.get(key)
        if graph is None and key in self._graphs and self._captures:
            graph = self._captured(key, work)
        if graph is not None:
            graph.launch(self._stream)
            return
        if len(self._graphs) >= MOST and key not in self._graphs:
            self._drop(next(iter(self._graphs)))
        self._graphs.setdefault(key, None)
        work()

    def _captured(self, key: Hashable, work: Callable[[], None]) -> Graph | None:
        try:
            graph = self._stream.capture(work)
        except CheckFailed as error:
            say(f"{self._name} is run without a CUDA graph, kernel by kernel: {error}")
            graph = None
        self._captures = graph is not None
        self._graphs[key] = graph
        return graph

    def _drop(self, key: Hashable) -> None:
        graph = self._graphs.pop(key)
        if graph is not None:
            self._stream.synchronize()  # it may be running
            graph.close()

    def forget(self) -> None:
        """Drop what is known, for addresses are about to change; waits for the stream."""
        self._stream.synchronize()
        for graph in self._graphs.values():
            if graph is not None:
                graph.close()
        self._graphs.clear()
