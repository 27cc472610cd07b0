"""Reading ahead: the newest frame of what is live, every frame of what is recorded."""

from __future__ import annotations

import threading
import time

import pytest
from video_stand_ins import HANG_LIMIT_S, GatedSource, ScriptedSource

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import feed as feed_module
from dlv3deploy.video import feeds as feeds_module
from dlv3deploy.video.feed import Feed
from dlv3deploy.video.newest import NewestFrame
from dlv3deploy.video.prefetch import FRAMES_AHEAD, Prefetch


class FeedContract:
    """Inherited by both kinds of feed."""

    kind: type[Feed]

    def test_it_ends_where_the_source_ends(self) -> None:
        with self.kind(ScriptedSource(frames=3, every_s=0.01)) as feed:
            assert list(iter(feed.read, None))[-1].index == 2
            assert feed.read() is None

    def test_an_error_of_the_source_reaches_the_reader_after_the_frames_before_it(self) -> None:
        error = UserError("the source", "broke", "mend it")
        with self.kind(ScriptedSource(frames=1, error=error)) as feed:
            assert feed.read() is not None
            with pytest.raises(UserError, match="broke"):
                feed.read()

    def test_close_ends_though_the_source_is_stuck(self) -> None:
        feed = self.kind(ScriptedSource(frames=0, blocks=True))
        closer = threading.Thread(target=feed.close)
        closer.start()
        closer.join(HANG_LIMIT_S / 3)
        assert not closer.is_alive()

    def test_close_ends_the_thread_of_a_source_that_goes_on(self) -> None:
        source = ScriptedSource(frames=10**9)
        with self.kind(source):
            pass
        handed_out = source.handed_out
        time.sleep(0.02)
        assert source.handed_out == handed_out

    def test_a_source_that_hangs_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(feed_module, "CLOSE_WAIT_S", 0.05)
        source = ScriptedSource(frames=0, blocks=True)
        source.silence_s = 0.05
        with self.kind(source) as feed, pytest.raises(UserError, match="does not answer"):
            feed.read()


class TestNewestFrame(FeedContract):
    kind = NewestFrame

    def test_a_slow_reader_gets_the_newest_frame_and_the_rest_is_counted(self) -> None:
        source = GatedSource()
        with NewestFrame(source) as feed:
            seen = []
            for captured_meanwhile in (1, 5, 1, 3):
                source.let_through(captured_meanwhile)
                frame = feed.read()
                assert frame is not None
                seen.append(frame.index)
            source.close()
        assert seen == [0, 5, 6, 9]
        assert feed.dropped == 6

    def test_a_reader_that_is_faster_than_the_source_waits_for_it(self) -> None:
        source = ScriptedSource(frames=2, every_s=0.05)
        with NewestFrame(source) as feed:
            first = feed.read()
            assert first is not None
            assert source.handed_out >= 1


class TestPrefetch(FeedContract):
    kind = Prefetch

    def test_a_slow_reader_gets_every_frame_in_order(self) -> None:
        with Prefetch(ScriptedSource(frames=20, live=False)) as feed:
            indices = []
            while (frame := feed.read()) is not None:
                indices.append(frame.index)
                time.sleep(0.002)
        assert indices == list(range(20))
        assert feed.dropped == 0

    def test_it_reads_ahead_a_few_frames_and_no_more(self) -> None:
        source = ScriptedSource(frames=100, live=False)
        with Prefetch(source):
            deadline_s = time.monotonic() + HANG_LIMIT_S
            while source.handed_out <= FRAMES_AHEAD and time.monotonic() < deadline_s:
                time.sleep(0.005)
            time.sleep(0.05)
            assert source.handed_out == FRAMES_AHEAD + 1  # the last one waits for its place


def test_several_that_are_stuck_are_left_after_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def wait(_feed: Feed, wait_s: float) -> None:
        waits.append(wait_s)
        time.sleep(wait_s)

    monkeypatch.setattr(Feed, "close", wait)
    monkeypatch.setattr(feeds_module, "CLOSE_WAIT_S", 0.05)
    with feeds_module.Feeds([ScriptedSource(frames=0, blocks=True) for _ in range(3)]):
        pass
    assert waits[0] > 0 and waits[1:] == [0.0, 0.0]
