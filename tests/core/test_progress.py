"""What people see while something runs: on stderr, and no bars in a log."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest

from dlv3deploy.core.progress import say, spent, tracked


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_all_items_come_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(iter(range(5)), "counting", 5)) == [0, 1, 2, 3, 4]
    assert capfd.readouterr() == ("", "")


def test_on_a_terminal_the_bar_is_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert list(tracked(iter(range(5)), "counting", 5)) == [0, 1, 2, 3, 4]
    assert "counting" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_a_failure_in_the_loop_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())

    def interrupted() -> None:
        for _ in tracked(range(5), "counting", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_items_are_taken_one_by_one() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(3):
            taken.append(i)
            yield i

    stream = tracked(items(), "counting")
    next(stream)
    assert taken == [0]


def test_what_is_said_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("eine Zeile")
    assert capsys.readouterr() == ("", "eine Zeile\n")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (4.23, "4.2 s"), (9.97, "10 s"), (57.4, "57 s"), (60, "1.0 min"), (1434, "23.9 min")]
)
def test_a_short_time_is_said_in_seconds(seconds: float, text: str) -> None:
    assert spent(seconds) == text
