"""A stage that never returns: Ctrl-C and SIGTERM end the run all the same, and what was recorded plays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from video_stand_ins import HANG_LIMIT_S, ListSink, ScriptedSource, brightness_segmenter

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import Overlay, Segmented, run_pipeline
from dlv3deploy.video import writer as writer_module
from dlv3deploy.video.pipeline import STUCK_AFTER_S

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("run_while_stuck.py")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("stage", "code", "said"),
    [
        ("read", 0, "interrupted: True"),
        ("model", 130, "the work on a frame has not ended"),
        ("write", 1, "the sink: has not taken a frame"),
        ("window", 130, "the work on a frame has not ended"),
    ],
)
def test_a_run_ends_whatever_is_stuck(stage: str, code: int, said: str, number: signal.Signals, tmp_path: Path) -> None:
    program = [sys.executable, str(PROGRAM), str(tmp_path / "out.mkv"), stage]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        time.sleep(0.3)  # from the line to the call
        process.send_signal(number)
        output, errors = process.communicate(timeout=HANG_LIMIT_S)
    assert process.returncode == code, (output, errors)
    assert said in output + errors
    (recorded,) = tmp_path.iterdir()  # of a sink that is stuck itself, the file that plays at any time
    assert recorded.name == "out.mkv" or (stage in ("write", "window") and "partial" in recorded.name)


def test_the_limits_add_up_to_less_than_two_seconds() -> None:
    """Of a run that is interrupted: feed and source each wait CLOSE_WAIT_S, the sink HURRIED_LIMIT_S."""
    from dlv3deploy.video import decoded, feed

    assert decoded.CLOSE_WAIT_S + feed.CLOSE_WAIT_S + writer_module.HURRIED_LIMIT_S < 2
    assert STUCK_AFTER_S + writer_module.HURRIED_LIMIT_S < 2


def test_a_sink_that_takes_nothing_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "WRITE_LIMIT_S", 0.2)

    class Stuck(ListSink):
        def write(self, result: Segmented) -> None:
            self.seconds = HANG_LIMIT_S
            super().write(result)

    with pytest.raises(UserError, match=r"has not taken a frame for 0\.2 s"):
        run_pipeline(
            ScriptedSource(frames=100, live=False),
            brightness_segmenter(),
            Stuck(),
            Overlay(brightness_segmenter().engine.spec.classes),
        )


def test_a_slow_sink_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "WRITE_LIMIT_S", 2.0)
    sink = ListSink(seconds=0.1)
    classes = brightness_segmenter().engine.spec.classes
    facts = run_pipeline(ScriptedSource(frames=30, live=False), brightness_segmenter(), sink, Overlay(classes))
    assert len(sink.results) == facts.frames == 30
    assert sink.closes == 1
