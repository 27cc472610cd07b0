"""What every sink promises; a kind of sink inherits this and says what it is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from video_stand_ins import CLASSES, ScriptedSource, result_of

from dlv3deploy.video import Sink, open_sink

RECORDED = ScriptedSource(frames=0, live=False)


class SinkContract:
    """Inherited by every kind of sink; a subclass names it in `text`, below `tmp_path`."""

    text: str
    holds = 4  # results that it is given

    @pytest.fixture
    def sink(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
        monkeypatch.chdir(tmp_path)
        with open_sink(self.text, CLASSES, RECORDED) as sink:
            yield sink

    def test_it_takes_results_and_closes_twice(self, sink: Sink) -> None:
        for i in range(self.holds):
            sink.write(result_of(i))
        sink.close()
        sink.close()

    def test_it_closes_without_a_result(self, sink: Sink) -> None:
        sink.close()

    def test_it_does_not_ask_for_the_end_by_itself(self, sink: Sink) -> None:
        sink.write(result_of(0))
        assert not sink.stopped

    def test_it_leaves_no_temporary_file(self, sink: Sink, tmp_path: Path) -> None:
        sink.write(result_of(0))
        sink.close()
        assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
