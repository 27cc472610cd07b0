"""OpenCV, FFmpeg and Qt talk on stderr about what this package reports itself; here they are told not to."""

from __future__ import annotations

import os

LOG_LEVEL_SILENT = 0


def silence_opencv() -> None:
    """Turn off the log lines of OpenCV and its FFmpeg, unless the user's environment asks for them.

    Both libraries read the environment when first used, so every module here calls this before it opens anything.
    """
    asked_for = "OPENCV_LOG_LEVEL" in os.environ
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    import cv2

    if not asked_for or os.environ["OPENCV_LOG_LEVEL"] == "SILENT":
        if hasattr(cv2, "setLogLevel"):  # OpenCV 4
            cv2.setLogLevel(LOG_LEVEL_SILENT)
        else:
            cv2.utils.logging.setLogLevel(LOG_LEVEL_SILENT)
