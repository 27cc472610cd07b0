"""What a run says about itself while it goes on."""

from __future__ import annotations

import io

import pytest

from dlv3deploy.video import Meter
from dlv3deploy.video.timing import FRAMES_KEPT, Times


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves a tenth of a second each time it is read; `clock[0]` is the time."""
    now = [100.0]

    def monotonic() -> float:
        now[0] += 0.1
        return now[0]

    monkeypatch.setattr("dlv3deploy.video.meter.time.monotonic", monotonic)
    return now


@pytest.mark.usefixtures("clock")
def test_on_a_terminal_one_line_renews_itself_and_vanishes() -> None:
    stream = Terminal()
    meter = Meter(stream)
    for i in range(20):
        meter(i + 1, 2, 41.2)
    meter.close()
    text = stream.getvalue()
    assert "\n" not in text
    assert "frames, 10.0 frames/s, inference 41 ms, 2 dropped" in text
    assert text.endswith("\r\x1b[K")


@pytest.mark.usefixtures("clock")
def test_in_a_log_there_is_a_line_every_five_seconds() -> None:
    stream = io.StringIO()
    meter = Meter(stream)
    for i in range(120):  # twelve seconds
        meter(i + 1, 0, 8.0)
    meter.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("10.0 frames/s, inference 8 ms, 0 dropped")


def test_percentiles_are_of_the_last_frames_in_bounded_memory() -> None:
    times = Times()
    assert times.percentiles() is None
    for _ in range(FRAMES_KEPT):
        times.collect(1.0)
    for i in range(FRAMES_KEPT):
        times.collect(i / FRAMES_KEPT)
    found = times.percentiles()
    assert found is not None
    assert (found.p50, found.p90, found.p99) == pytest.approx((500, 900, 990), abs=1)
