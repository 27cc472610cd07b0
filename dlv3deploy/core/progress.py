"""Progress on stderr, and silence when stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def say(text: str) -> None:
    """One line for people, on stderr, so that stdout stays for results."""
    print(text, file=sys.stderr, flush=True)


def spent(seconds: float) -> str:
    """A time for people: `4.2 s` or `57 s` below a minute, `23.9 min` above."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min"


def tracked(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """`items`, with a progress bar over them when stderr is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=what, total=total, console=Console(stderr=True), transient=True)
