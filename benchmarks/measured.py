"""A command run by itself: how long it took, the most memory it held, and why it ended early if it did.

Linux starts a process with the memory of whoever started it in its highest mark. So a small process lies between: this very
file, run as a script with the standard library alone, starts the command, watches it, and reports in one JSON line.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

LOOK_EVERY = 0.02  # seconds between two looks at the command, and so how exactly its time is known
GRACE = 10.0  # seconds that a command has to end after it was asked to
MB = 10**6
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in one unit of `ru_maxrss`
NO_MEMORY = re.compile(r"bad_alloc|MemoryError|Failed to allocate memory", re.IGNORECASE)

End = Literal["done", "failed", "out of memory", "out of time"]


@dataclass(frozen=True)
class Limits:
    """What one command may take; its memory is looked at while it runs, so a quick one may pass the limit for a moment."""

    seconds: float
    memory_mb: int


@dataclass(frozen=True)
class Outcome:
    """`peak_mb` is the largest resident memory of the whole process, libraries included, in 10⁶ bytes."""

    end: End
    code: int
    seconds: float
    peak_mb: int
    stderr: str


def run_measured(command: Sequence[str], limits: Limits, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run `command` to its end, or to the limit that it meets. Ctrl-C ends it as well, and KeyboardInterrupt goes on."""
    watcher = [sys.executable, "-I", "-S", __file__, str(limits.seconds), str(limits.memory_mb), *command]
    with subprocess.Popen(
        watcher,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment or os.environ),
        text=True,
        errors="replace",
    ) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    facts: dict[str, Any] = json.loads(out.splitlines()[-1])
    if facts["interrupted"]:
        raise KeyboardInterrupt
    end: End = "out of memory" if facts["end"] == "failed" and NO_MEMORY.search(last_words(err)) else facts["end"]
    return Outcome(end, facts["code"], facts["seconds"], facts["peak_mb"], err)


def last_words(text: str) -> str:
    """The last line of what a program said, without the frame that the command line draws around its errors."""
    lines = [line.strip(" │╭╰╮╯─") for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "no message")


def _watch(seconds: float, memory_mb: int, command: Sequence[str]) -> dict[str, Any]:
    interrupts: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):  # a handler, unlike SIG_IGN, is not handed down to the command
        signal.signal(number, lambda number, _frame: interrupts.append(number))
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end: End | None = None
    asked: float | None = None
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        now = time.monotonic()
        if pid:
            break
        if end is None and _resident_mb(process.pid) > memory_mb:
            end = "out of memory"
        elif end is None and now - started > seconds:
            end = "out of time"
        if asked is None and (end or interrupts):
            _send(process.pid, signal.SIGKILL if end else signal.SIGTERM)
            asked = now
        elif asked is not None and now - asked > GRACE:
            _send(process.pid, signal.SIGKILL)
        time.sleep(LOOK_EVERY)
    code = os.waitstatus_to_exitcode(status)
    if end is None and code == -signal.SIGKILL:
        end = "out of memory"  # nobody here sent it, so the system did
    process.returncode = code
    return {
        "end": end or ("failed" if code else "done"),
        "code": code,
        "seconds": now - started,
        "peak_mb": math.ceil(usage.ru_maxrss * MAXRSS_UNIT / MB),
        "interrupted": bool(interrupts),
    }


def _resident_mb(pid: int) -> float:
    """What the process holds at this moment; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MB
    return 0.0


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    try:
        facts = _watch(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    except OSError as error:
        print(error, file=sys.stderr)
        facts = {"end": "failed", "code": 127, "seconds": 0.0, "peak_mb": 0, "interrupted": False}
    print(json.dumps(facts))
