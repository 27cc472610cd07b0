"""Record 10 frames into argv[1]; then argv[2], one of read, model, write or window, never returns. Say so, and run on."""

import ctypes
import sys

import numpy as np
from video_stand_ins import CLASSES, BrightnessEngine, ListSink, ScriptedSource

from dlv3deploy.core.engine import Batch, Outputs
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.video import CapturedFrame, Overlay, Segmented, Tee, open_sink, run_pipeline

FRAMES = 10
LIBC = ctypes.CDLL(None)
MUTEX = ctypes.create_string_buffer(128)


def never_return() -> None:
    """A call in C that no signal ends: the second lock of a mutex that this thread holds."""
    print("stuck", flush=True)
    LIBC.pthread_mutex_lock(MUTEX)
    LIBC.pthread_mutex_lock(MUTEX)


class Source(ScriptedSource):
    def read(self) -> CapturedFrame | None:
        if sys.argv[2] == "read" and self.handed_out == FRAMES:
            never_return()
        return super().read()


class Engine(BrightnessEngine):
    calls = 0

    def infer(self, batch: Batch) -> Outputs:
        self.calls += 1
        if sys.argv[2] == "model" and self.calls == FRAMES + 1:
            never_return()
        return np.asarray(super().infer(batch), np.float32)


class Stuck(ListSink):
    def write(self, result: Segmented) -> None:
        super().write(result)
        if sys.argv[2] in ("write", "window") and len(self.results) == FRAMES:
            never_return()


source, stuck = Source(frames=10**9, every_s=0.002, live=False), Stuck()
stuck.wants_calling_thread = sys.argv[2] == "window"
sink = Tee([open_sink(sys.argv[1], CLASSES, source), stuck])
try:
    facts = run_pipeline(source, Segmenter(Engine()), sink, Overlay(CLASSES))
except UserError as error:
    print(error)
    sys.exit(1)
print(f"interrupted: {facts.interrupted}")
