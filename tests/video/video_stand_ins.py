"""Stand-ins for what the video tests do not test: a model (real inference has tests of its own), servers, sources, clips."""

from __future__ import annotations

import http.server
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs, check_batch
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import InputSpec, ModelSpec, OutputSpec
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.sink import Segmented, Sink

CLASSES = Classes(("dark", "middle", "bright"), ((0, 0, 160), (0, 160, 0), (200, 60, 0)))
CENTRES = (40.0, 128.0, 215.0)  # of the three classes, as grey values
HANG_LIMIT_S = 30.0


class BrightnessEngine(ClosingEngine):
    """In place of a network: the class of a pixel is its brightness."""

    name = "brightness, NumPy"
    input_shape: tuple[int | None, int, int | None, int | None] = (1, 3, 48, 64)
    spec = ModelSpec(CLASSES, InputSpec(48, 64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), OutputSpec("scores"))

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def infer(self, batch: Batch) -> Outputs:
        check_batch(self, batch)
        time.sleep(self.seconds)
        grey = batch.mean(axis=1)[:, ::4, ::4]
        return np.stack([-((grey - centre) ** 2) for centre in CENTRES], axis=1).astype(np.float32)


def brightness_segmenter(seconds: float = 0.0) -> Segmenter:
    return Segmenter(BrightnessEngine(seconds))


def grey_frame(value: int, height: int = 48, width: int = 64) -> Frame:
    return np.full((height, width, 3), value, np.uint8)


def result_of(index: int, frame: Frame | None = None, mask: Mask | None = None, time_s: float | None = None) -> Segmented:
    frame = grey_frame(20 * index % 256) if frame is None else frame
    mask = np.zeros(frame.shape[:2], np.uint8) if mask is None else mask
    captured = CapturedFrame(frame, index, time.monotonic() if time_s is None else time_s, f"frame_{index:06d}")
    return Segmented(captured, mask, frame)


def write_video(path: Path, frames: int, height: int = 48, width: int = 64, fps: float = 10.0) -> Path:
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, (width, height))
    for i in range(frames):
        writer.write(grey_frame(20 * i % 256, height, width))
    writer.release()
    return path


def frames_of(path: Path) -> list[Frame]:
    """Every frame that decodes, by OpenCV alone."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(np.asarray(read[1], np.uint8))
    return frames


class ScriptedSource(Source):
    """Frames every `every_s` seconds; live by default. It can fail after some, or block until closed."""

    fps = 25.0
    size = (48, 64)
    frame_count = None

    def __init__(
        self, frames: int, every_s: float = 0.0, live: bool = True, error: Exception | None = None, blocks: bool = False
    ) -> None:
        self.live, self.frames, self.every_s, self.error, self.blocks = live, frames, every_s, error, blocks
        self.handed_out = 0
        self.closed = threading.Event()

    def read(self) -> CapturedFrame | None:
        if self.handed_out >= self.frames:
            if self.blocks:
                time.sleep(HANG_LIMIT_S)  # as a driver that hangs: it does not notice `close` either
            if self.error is not None:
                raise self.error
            return None
        if self.closed.wait(self.every_s):
            return None
        index = self.handed_out
        self.handed_out += 1
        return CapturedFrame(grey_frame(index * 20 % 256), index, time.monotonic(), f"scripted_{index:06d}")

    def close(self) -> None:
        self.closed.set()


class GatedSource(ScriptedSource):
    """A live source that captures when told to, so that no test depends on how fast the machine is."""

    def __init__(self) -> None:
        super().__init__(frames=10**9)
        self._may_capture, self._arrived = threading.Semaphore(0), threading.Semaphore(0)

    def let_through(self, frames: int) -> None:
        """Capture `frames`, and come back when all of them were handed over."""
        for _ in range(frames):
            self._arrived.acquire()
            self._may_capture.release()
        self._arrived.acquire()  # back for the next frame, so the last one was taken
        self._arrived.release()

    def read(self) -> CapturedFrame | None:
        self._arrived.release()
        self._may_capture.acquire()
        return super().read()

    def close(self) -> None:
        super().close()
        self._may_capture.release()


class ListSink(Sink):
    """Keeps what it is given; may be slow, fail, or ask for the end after some."""

    def __init__(
        self,
        wants_overlay: bool = False,
        seconds: float = 0.0,
        fails_at: int = -1,
        error: Exception | None = None,
        stop_at: int = -1,
    ) -> None:
        self.wants_overlay, self.seconds, self.fails_at, self.error, self.stop_at = (
            wants_overlay,
            seconds,
            fails_at,
            error,
            stop_at,
        )
        self.results: list[Segmented] = []
        self.closes = 0
        self.threads: set[int] = set()

    def write(self, result: Segmented) -> None:
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        if len(self.results) == self.fails_at and self.error is not None:
            raise self.error
        self.results.append(result)
        self.stopped = len(self.results) == self.stop_at

    def close(self) -> None:
        self.closes += 1


class HeldSink(ListSink):
    """Takes a result only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def write(self, result: Segmented) -> None:
        assert self.may.wait(HANG_LIMIT_S)
        super().write(result)


class MjpegServer:
    """A real HTTP server: `/camera` sends `frames` JPEG pictures and ends, `/stall` falls silent after ten without an end.

    With `cuts`, `/camera` is cut off in the middle of a picture so many times, and goes on without an end after that.
    """

    frames: ClassVar[int] = 25

    def __init__(self, cuts: int = 0) -> None:
        left = [cuts]
        stop = self._stop = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                if self.path not in ("/camera", "/stall"):
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                is_cut, left[0] = left[0] > 0, left[0] - 1
                count = 10**6 if cuts and not is_cut else 10 if self.path == "/stall" else MjpegServer.frames
                for i in range(count):
                    jpeg = cv2.imencode(".jpg", grey_frame(10 * i % 256, 120, 160))[1].tobytes()
                    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                    try:
                        self.wfile.write(head + jpeg + b"\r\n")
                    except OSError:
                        return
                    stop.wait(0.01)
                    if stop.is_set():
                        return
                if is_cut:
                    self.wfile.write(head + jpeg[:50])
                    return
                if self.path == "/stall":
                    stop.wait(HANG_LIMIT_S)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> MjpegServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()


class RtspServer:
    """GStreamer's own RTSP server, run by the system's Python: `/camera` sends 25 frames a second of 160×120, without end."""

    PYTHON = "/usr/bin/python3"
    IMPORTS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"

    def __init__(self, port: int = 0) -> None:
        self.port = port

    @classmethod
    def missing(cls) -> str:
        """Why there can be no server, or nothing."""
        if not Path(cls.PYTHON).exists():
            return f"there is no {cls.PYTHON} to run GStreamer's RTSP server"
        tried = subprocess.run(
            [cls.PYTHON, "-c", cls.IMPORTS], capture_output=True, text=True, timeout=HANG_LIMIT_S, check=False
        )
        return f"{cls.PYTHON} cannot import gi's GstRtspServer" if tried.returncode else ""

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    def __enter__(self) -> RtspServer:
        program = str(Path(__file__).with_name("rtsp_server.py"))
        self._process = subprocess.Popen(
            [self.PYTHON, program, str(self.port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def silent_server() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
