"""What needs an OpenCV with GStreamer, for the system's Python where it has one; argv[1] names the part."""

import sys
import time

import cv2
import numpy as np

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.video import open_sink, open_source, parse_source
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.sink import Segmented

CLASSES = Classes(("dark", "bright"), ((0, 0, 0), (255, 255, 255)))


class Described(Source):
    """Of which sinks are told the rate, and whether it is live."""

    size = (48, 64)
    frame_count = None

    def __init__(self, live: bool) -> None:
        self.live, self.fps = live, 25.0

    def read(self) -> None: ...

    def close(self) -> None: ...


def result(shade: int, time_s: float) -> Segmented:
    picture = np.full((49, 64, 3), shade, np.uint8)
    return Segmented(CapturedFrame(picture, 0, time_s, "frame"), np.zeros((49, 64), np.uint8), picture)


def send(text: str, live: bool, times_s: list[float]) -> None:
    with open_sink(text, CLASSES, Described(live)) as sink:
        for number, time_s in enumerate(times_s):
            sink.write(result(20 * number, time_s))
            if text.startswith("rtsp"):
                time.sleep(0.04)


part, *rest = sys.argv[1:]
try:
    if part == "has":
        sys.exit("GStreamer:                   YES" not in cv2.getBuildInformation())
    elif part == "send":
        send(rest[0], rest[1] == "live", [float(text) for text in rest[2].split(",")])
    elif part == "read":
        with open_source(parse_source(rest[0])) as source:
            frames = []
            while (frame := source.read()) is not None:
                frames.append(frame.pixels)
            print(len(frames), *frames[0].shape)
except UserError as error:
    sys.exit(str(error))
