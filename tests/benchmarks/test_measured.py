"""A command's time and memory, and how it ends when it takes too much of either."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import measured
import pytest
from measured import Limits, last_words, run_measured

LIMITS = Limits(seconds=120, memory_mb=2000)
TAKE = "block = bytearray({mb} * 10**6); block[::4096] = bytes(len(block[::4096]))"


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_the_peak_is_the_commands_own_however_much_its_caller_holds() -> None:
    ballast = bytearray(300 * 10**6)
    ballast[::4096] = bytes(len(ballast[::4096]))
    small, large = (run_measured(python(code), LIMITS) for code in ("pass", TAKE.format(mb=200)))
    assert (small.end, large.end) == ("done", "done")
    assert 1 < small.peak_mb < 100
    assert 200 <= large.peak_mb < small.peak_mb + 250
    del ballast


def test_a_command_that_takes_more_memory_than_it_may_is_ended() -> None:
    outcome = run_measured(python(TAKE.format(mb=300) + "; import time; time.sleep(60)"), Limits(120, 150))
    assert outcome.end == "out of memory"
    assert outcome.peak_mb > 150


def test_a_command_that_takes_longer_than_it_may_is_ended() -> None:
    assert run_measured(python("import time; time.sleep(60)"), Limits(0.5, 2000)).end == "out of time"


@pytest.mark.parametrize(
    ("code", "end", "said"),
    [
        ("raise SystemExit('no such thing')", "failed", "no such thing"),
        ("raise MemoryError", "out of memory", "MemoryError"),
        ("raise SystemExit('what():  std::bad_alloc')", "out of memory", "what():  std::bad_alloc"),
    ],
)
def test_a_failure_says_what_the_command_said_last(code: str, end: str, said: str) -> None:
    outcome = run_measured(python(code), LIMITS)
    assert (outcome.end, outcome.code, last_words(outcome.stderr)) == (end, 1, said)


def test_a_command_that_is_not_there_is_a_failure() -> None:
    outcome = run_measured(["/no/such/program"], LIMITS)
    assert outcome.end == "failed"
    assert "No such file" in outcome.stderr


def test_the_frame_around_an_error_is_no_part_of_it() -> None:
    assert last_words("Usage: x\n╭─ Error ─╮\n│ No such command 'y'.  │\n╰─────────╯\n") == "No such command 'y'."
    assert last_words("\n \n") == "no message"


def test_an_interrupt_ends_the_command_too_and_is_reported(tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = f"import pathlib, time; pathlib.Path({str(started)!r}).write_text('now'); time.sleep(60)"
    watcher = [sys.executable, measured.__file__, "120", "2000", *python(code)]
    with subprocess.Popen(watcher, stdout=subprocess.PIPE, text=True) as process:
        while not started.exists() and process.poll() is None:
            pass
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    facts = json.loads(out)
    assert facts["interrupted"]
    assert facts["code"] == -signal.SIGTERM
