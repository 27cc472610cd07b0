"""A TensorRT build while it runs: its phases as progress bars, and Ctrl-C that ends it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dlv3deploy.core.interrupts import Noted, interrupts_noted
from dlv3deploy.engines.dialect import has

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def build_progress(trt: Any, config: Any) -> Iterator[None]:
    """Show what the build that runs inside does; raise KeyboardInterrupt after it when the user asked to stop meanwhile.

    A builder asks its monitor after every step whether to go on. TensorRT 8 has no monitor: Ctrl-C waits there for the end.
    """
    if has(trt, "IProgressMonitor"):
        with interrupts_noted() as noted, _bars() as bars:
            config.progress_monitor = monitor = _monitor(trt, noted, bars)
            try:
                yield
            finally:
                monitor.close()
            if noted.count:
                raise KeyboardInterrupt
    else:
        yield


@contextmanager
def _bars() -> Iterator[Progress | None]:
    """Bars on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        yield bars


def _monitor(trt: Any, noted: Noted, bars: Progress | None) -> Any:
    if has(trt, "IProgressMonitor"):

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the module is chosen at run time
            """Called from the builder's native code, which must see no exception."""

            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)
                self.tasks: dict[str, tuple[TaskID, int]] = {}
                self.open = True

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                if bars is not None and self.open:
                    depth = self.tasks[parent_phase][1] + 1 if parent_phase in self.tasks else 0
                    task = bars.add_task("  " * depth + phase_name, total=num_steps)
                    self.tasks[phase_name] = task, depth

            def step_complete(self, phase_name: str, step: int) -> bool:
                if bars is not None and self.open and phase_name in self.tasks:
                    bars.update(self.tasks[phase_name][0], completed=step + 1)
                return not noted.count

            def phase_finish(self, phase_name: str) -> None:
                if bars is not None and self.open and phase_name in self.tasks:
                    bars.remove_task(self.tasks.pop(phase_name)[0])

            def close(self) -> None:
                self.open = False

        return Monitor()
    raise AssertionError("a monitor is made where there are monitors")
