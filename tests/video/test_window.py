"""The window, as far as a machine without a screen can test it: OpenCV's window calls are replaced."""

from __future__ import annotations

from collections import deque

import cv2
import pytest
from video_stand_ins import CLASSES, ListSink, ScriptedSource, brightness_segmenter, result_of

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import Overlay, Stream, open_sink, run_streams
from dlv3deploy.video.window import SlideShow, Window, check_screen


class Screen:
    """In place of a window system: remembers what is shown, and types `keys`."""

    def __init__(self) -> None:
        self.keys: deque[int] = deque()
        self.shown = 0
        self.visible = True
        self.titles: list[str] = []
        self.closed: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dlv3deploy.video.window.check_screen", lambda: None)
        monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
        monkeypatch.setattr(cv2, "resizeWindow", lambda *_: None)
        monkeypatch.setattr(cv2, "destroyWindow", self.closed.append)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0 if self.visible else 0.0)
        monkeypatch.setattr(cv2, "imshow", self._show)
        monkeypatch.setattr(cv2, "waitKey", lambda _: self.keys.popleft() if self.keys else -1)

    def _show(self, title: str, _picture: object) -> None:
        self.titles.append(title)
        self.shown += 1


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    screen.install(monkeypatch)
    return screen


def test_without_a_screen_it_is_refused_before_anything_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UserError, match=r"no screen.*--sink FILE\.mp4"):
        open_sink("window", CLASSES, ScriptedSource(frames=0))


def test_a_screen_that_cannot_be_reached_is_refused_and_the_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UserError, match=r"(:987 cannot be opened|without windows).*--sink FILE\.mp4"):
        check_screen()


@pytest.mark.parametrize("key", ["q", "Q", "\x1b"])
def test_q_and_escape_ask_for_the_end(key: str, screen: Screen) -> None:
    with Window() as window:
        window.write(result_of(0))
        before = window.stopped
        screen.keys.append(ord(key))
        window.write(result_of(1))
        after = window.stopped
    assert (before, after) == (False, True)
    assert screen.shown == 2


def test_closing_the_window_asks_for_the_end(screen: Screen) -> None:
    with Window() as window:
        screen.visible = False
        window.write(result_of(0))
        assert window.stopped


def test_windows_of_several_streams_are_told_apart(screen: Screen) -> None:
    first, second = (open_sink("window", CLASSES, ScriptedSource(frames=0), title=title) for title in ("0: front", "1: back"))
    for window in (first, second):
        window.write(result_of(0))
    assert screen.titles == ["0: front: q or Esc ends", "1: back: q or Esc ends"]
    first.close()
    assert screen.closed == ["0: front: q or Esc ends"]
    second.close()


def test_other_keys_do_nothing(screen: Screen) -> None:
    with Window() as window:
        screen.keys.append(ord("x"))
        window.write(result_of(0))
        assert not window.stopped


def test_pictures_wait_for_a_key(screen: Screen) -> None:
    with SlideShow() as window:
        screen.keys.extend([-1, -1, ord(" ")])
        window.write(result_of(0))
        assert not screen.keys
        assert not window.stopped


def test_a_window_is_written_to_from_the_calling_thread_and_wants_the_overlay(screen: Screen) -> None:
    with open_sink("window", CLASSES, ScriptedSource(frames=0)) as window:
        assert window.wants_calling_thread
        assert window.wants_overlay
        assert not isinstance(window, SlideShow)


def test_nothing_is_shown_once_the_end_is_asked_for(screen: Screen) -> None:
    """Not even what another stream of the same round has: a slide show would wait for a key again."""
    screen.keys.append(ord("q"))
    sources = [ScriptedSource(frames=3, live=False) for _ in range(2)]
    show = SlideShow("0: pictures")
    run_streams(
        [Stream(sources[0], show), Stream(sources[1], ListSink())], brightness_segmenter(), Overlay(CLASSES), within_s=60
    )
    assert screen.shown == 1
