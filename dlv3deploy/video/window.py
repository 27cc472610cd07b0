"""A window on this machine's screen."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

from dlv3deploy.core.errors import UserError
from dlv3deploy.video.quiet import silence_opencv
from dlv3deploy.video.sink import Segmented, Sink

TITLE, ENDS = "dlv3deploy", "q or Esc ends"
END_KEYS = {ord("q"), ord("Q"), 27}
LONGEST_SIDE_AT_FIRST = 1280
PROBE_LIMIT_S = 20.0
REMEDY = "write a file instead: --sink FILE.mp4, or look with a browser: --serve 8080"


class Window(Sink):
    """Shows each result at once; q, Esc or closing the window sets `stopped`. Windows of one process differ in `title`.

    Raises UserError without a screen and with an OpenCV that was built without windows.
    """

    wants_overlay = True
    wants_calling_thread = True  # window systems serve one thread, on some of them only the main one

    def __init__(self, title: str = TITLE) -> None:
        self._title = f"{title}: {ENDS}"
        check_screen()
        silence_opencv()
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")  # Qt misses fonts that are not used here
        self._open = False

    def write(self, result: Segmented) -> None:
        import cv2

        if self.stopped:
            return
        picture = result.shown()
        if not self._open:
            self._open = True
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            height, width = picture.shape[:2]
            shrink = min(1.0, LONGEST_SIDE_AT_FIRST / max(height, width))
            cv2.resizeWindow(self._title, round(width * shrink), round(height * shrink))
        cv2.imshow(self._title, picture)
        self._wait()

    def _wait(self) -> None:
        self._poll(1)

    def _poll(self, wait_ms: int) -> int:
        """The key that was pressed, -1 for none; notes whether the user wants the end."""
        import cv2

        key = cv2.waitKey(wait_ms)
        key = key & 0xFF if key >= 0 else -1
        self.stopped = key in END_KEYS or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        return key

    def close(self) -> None:
        if self._open:
            import cv2

            self._open = False
            with suppress(cv2.error):  # its user has closed it
                cv2.destroyWindow(self._title)


class SlideShow(Window):
    """Waits for a key after every picture."""

    def _wait(self) -> None:
        while self._poll(50) == -1 and not self.stopped:
            pass


def check_screen() -> None:
    """Raise UserError when a window cannot be opened.

    Qt ends the whole process when it finds no screen, so a second process tries first.
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError("--sink window", "this session has no screen (DISPLAY and WAYLAND_DISPLAY are not set)", REMEDY)
    program = "import cv2; cv2.namedWindow('dlv3deploy'); cv2.destroyAllWindows()"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=PROBE_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError("--sink window", f"the screen did not answer within {PROBE_LIMIT_S:.0f} s", REMEDY) from None
    if tried.returncode == 0:
        return
    if "not implemented" in tried.stderr:
        raise UserError("--sink window", "this OpenCV was built without windows (opencv-python-headless)", REMEDY)
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "the default one"
    raise UserError("--sink window", f"the screen {display} cannot be opened", REMEDY)
