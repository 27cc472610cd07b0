"""What every source promises, and what each kind of source says when it cannot deliver."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from video_stand_ins import HANG_LIMIT_S, MjpegServer, RtspServer, frames_of, grey_frame, write_video

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import write_frame
from dlv3deploy.scenes import ROAD_SCENE, Drive
from dlv3deploy.video import Source, open_source, parse_source
from dlv3deploy.video.camera import CameraSource
from dlv3deploy.video.frames import CapturedFrame

ENOUGH = 8


REAL_CAPTURE = cv2.VideoCapture


class SourceContract:
    """Inherited by every kind of source; a subclass names it in `address`."""

    live = False

    @pytest.fixture
    def address(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def source(self, address: str) -> Iterator[Source]:
        with open_source(parse_source(address)) as source:
            yield source

    def test_it_says_whether_it_is_live(self, source: Source) -> None:
        assert source.live == self.live

    def test_frames_are_bgr_bytes_of_the_size_it_states(self, source: Source) -> None:
        for frame in some(source):
            assert frame.pixels.dtype == np.uint8
            assert frame.pixels.shape == (*source.size, 3)
            assert frame.pixels.flags.c_contiguous

    def test_frames_are_numbered_dated_and_named_apart(self, source: Source) -> None:
        frames = some(source)
        assert [frame.index for frame in frames] == list(range(len(frames)))
        assert all(a.time_s <= b.time_s for a, b in pairwise(frames))
        assert len({frame.name for frame in frames}) == len(frames)
        assert not any("/" in frame.name or "." in frame.name for frame in frames)

    def test_every_frame_has_pixels_of_its_own(self, source: Source) -> None:
        frames = some(source)
        kept = [frame.pixels.copy() for frame in frames]
        assert all(np.array_equal(frame.pixels, copy) for frame, copy in zip(frames, kept, strict=True))

    def test_the_rate_is_plausible_or_unknown(self, source: Source) -> None:
        assert source.fps is None or 0 < source.fps < 1000

    def test_after_close_there_are_no_frames(self, source: Source) -> None:
        source.close()
        source.close()
        assert source.read() is None

    def test_it_may_be_closed_while_another_thread_reads(self, source: Source) -> None:
        def read_on() -> None:
            with suppress(UserError):  # the camera's stand-in may come to its end first
                for _ in iter(source.read, None):
                    pass

        reader = threading.Thread(target=read_on)
        reader.start()
        source.close()
        reader.join(HANG_LIMIT_S)
        assert not reader.is_alive()


def some(source: Source) -> list[CapturedFrame]:
    frames: list[CapturedFrame] = []
    while len(frames) < ENOUGH and (frame := source.read()) is not None:
        frames.append(frame)
    return frames


class TestVideoFile(SourceContract):
    @pytest.fixture
    def address(self, video: Path) -> str:
        return str(video)

    def test_it_delivers_every_frame_in_order(self, source: Source, video: Path) -> None:
        read = [frame.pixels for frame in iter(source.read, None)]
        assert source.frame_count == len(read) == 12
        assert all(np.array_equal(a, b) for a, b in zip(read, frames_of(video), strict=True))
        assert source.read() is None


class TestVideoOverHttp(SourceContract):
    """A recording on a web server has an end, so nothing of it is left out."""

    @pytest.fixture
    def address(self, video: Path) -> Iterator[str]:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(video.parent)))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{video.name}"
        server.shutdown()
        server.server_close()


class TestMjpegOverHttp(SourceContract):
    live = True

    @pytest.fixture
    def address(self, mjpeg: MjpegServer) -> str:
        return f"{mjpeg.url}/camera"

    def test_it_ends_where_the_server_ends_it(self, source: Source) -> None:
        assert len(list(iter(source.read, None))) == MjpegServer.frames


class TestRtsp(SourceContract):
    live = True

    @pytest.fixture
    def address(self, rtsp: RtspServer) -> str:
        return rtsp.url


class TestFolder(SourceContract):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        for i in range(3):
            write_frame(tmp_path / f"{i}.png", grey_frame(50 * i))
        return str(tmp_path)

    def test_it_reads_what_was_drawn(self, source: Source) -> None:
        assert [int(frame.pixels[0, 0, 0]) for frame in some(source)] == [0, 50, 100]


class TestGlob(TestFolder):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        for i in range(3):
            write_frame(tmp_path / f"{i}.png", grey_frame(50 * i))
        write_frame(tmp_path / "other.bmp", grey_frame(7))
        return f"{tmp_path}/*.png"


class TestOnePicture(SourceContract):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        write_frame(tmp_path / "street.png", grey_frame(9))
        return str(tmp_path / "street.png")

    def test_its_mask_gets_its_name(self, source: Source) -> None:
        assert [frame.name for frame in some(source)] == ["street"]


class TestCamera(SourceContract):
    """No camera in the test machine: a recording stands in for the device, everything around it is real."""

    live = True

    @pytest.fixture
    def address(self, video: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        real = cv2.VideoCapture
        monkeypatch.setattr("dlv3deploy.video.camera._check_device", lambda *_: None)
        monkeypatch.setattr(cv2, "VideoCapture", lambda device, backend: real(str(video)))
        return "camera 0"

    def test_a_camera_that_stops_is_an_error_not_an_end(self, source: Source) -> None:
        with pytest.raises(UserError, match="stopped sending after 12 frames"):
            list(iter(source.read, None))


class TestDrawn(SourceContract):
    @pytest.fixture
    def address(self) -> str:
        return "test://3?size=64x96&fps=4&seconds=1.5"

    def test_it_is_the_drive_of_its_seed_with_its_true_masks(self, source: Source) -> None:
        assert source.frame_count == 6 and source.truth_classes == ROAD_SCENE
        frames, drive = list(iter(source.read, None)), Drive(3, 64, 96)
        assert len(frames) == 6
        for frame in frames:
            pixels, truth = drive.at(frame.index / 4)
            assert np.array_equal(frame.pixels, pixels) and frame.truth is not None and np.array_equal(frame.truth, truth)


class TestLiveDrawn(SourceContract):
    live = True

    @pytest.fixture
    def address(self) -> str:
        return "test://3?size=64x96&fps=200&seconds=60&live=yes"

    def test_frames_are_numbered_dated_and_named_apart(self, source: Source) -> None:
        """As a camera does it goes on when nobody reads, so that numbers are left out."""
        indices = [frame.index for frame in some(source)]
        assert indices[0] == 0 and all(a < b for a, b in pairwise(indices))


def test_a_drawn_scene_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UserError, match="sides are 32 to 4096 pixels"):
        open_source(parse_source("test://0?size=8x8"))


class Capture:
    """In place of a camera's capture: it notes what is asked for, and gives what a recording has."""

    def __init__(self, video: Path) -> None:
        self.real, self.asked = REAL_CAPTURE(str(video)), list[tuple[int, float]]()

    def set(self, what: int, value: float) -> bool:
        self.asked.append((what, value))
        return True

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


def test_a_camera_is_asked_first_for_the_format_and_says_what_it_got(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = Capture(video)
    monkeypatch.setattr("dlv3deploy.video.camera._check_device", lambda *_: None)
    monkeypatch.setattr(cv2, "VideoCapture", lambda _device, _backend: capture)
    with open_source(parse_source("v4l2:///dev/video0?width=1280&fps=30&height=720&format=MJPG")):
        pass
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    assert capture.asked == [
        (cv2.CAP_PROP_FOURCC, fourcc),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 30),
    ]
    said = capsys.readouterr().err
    assert "asked for width 1280, height 720, fps 30, format MJPG" in said.replace("fps 30, height 720", "height 720, fps 30")
    assert "got width 64, height 48, fps 10" in said


@pytest.mark.parametrize("address", ["gst:videotestsrc num-buffers=5", "csi://0"])
def test_a_pipeline_says_what_it_needs_or_runs(address: str) -> None:
    """PyPI's OpenCV has no GStreamer; a distribution's has, and no Jetson's camera."""
    if "GStreamer:                   YES" not in cv2.getBuildInformation():
        with pytest.raises(UserError, match="this OpenCV was built without GStreamer"):
            open_source(parse_source(address))
    elif address.startswith("gst"):
        with open_source(parse_source(address)) as source:
            assert len(list(iter(source.read, None))) > 0
    else:
        with pytest.raises(UserError, match="the pipeline does not start"):
            open_source(parse_source(address))


def test_an_absent_camera_names_those_that_are_there() -> None:
    with pytest.raises(UserError, match=r"camera 99.*there is no /dev/video99.*this machine has"):
        open_source(parse_source("99"))


def test_a_camera_that_sends_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlv3deploy.video.camera._check_device", lambda *_: None)
    with pytest.raises(UserError, match="sends no frames"):
        CameraSource(parse_source("98"))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"only some text\n" * 99, "not a readable video"), (bytes(5000), "not a readable")],
)
def test_what_is_no_video_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        open_source(parse_source(str(path)))


def test_a_video_cut_before_its_index_is_refused(video: Path) -> None:
    video.write_bytes(video.read_bytes()[:-400])
    with pytest.raises(UserError, match="not a readable video"):
        open_source(parse_source(str(video)))


def test_a_video_that_ends_early_says_both_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_video(tmp_path / "clip.avi", frames=12, height=480, width=640)
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) * 6 // 10])
    with open_source(parse_source(str(whole))) as source:
        read = len(list(iter(source.read, None)))
    assert 0 < read < 12
    assert f"decoding ended after {read} frames, the file announces 12" in capsys.readouterr().err


def test_a_video_may_have_a_name_that_ffmpeg_takes_for_a_protocol(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video.rename(video.parent / "cam:1 %03d.mp4")
    monkeypatch.chdir(video.parent)
    with open_source(parse_source("cam:1 %03d.mp4")) as source:
        assert len(list(iter(source.read, None))) == 12


def test_a_corrupt_picture_in_a_folder_is_reported_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write_frame(tmp_path / name, grey_frame(80))
    whole = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
    with open_source(parse_source(str(tmp_path))) as source:
        assert [(frame.index, frame.name) for frame in iter(source.read, None)] == [(0, "a"), (2, "c")]
    said = capsys.readouterr().err
    assert "b.jpg" in said
    assert "1 of 3 pictures could not be read" in said


def test_a_folder_in_which_no_picture_can_be_read_is_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"not a picture")
    with pytest.raises(UserError, match="none of its 2 pictures"):
        open_source(parse_source(str(tmp_path)))


def test_a_single_corrupt_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"not a picture")
    with pytest.raises(UserError, match="not a readable picture"):
        open_source(parse_source(str(tmp_path / "a.jpg")))


def test_pictures_with_one_stem_get_different_mask_names(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "b.png"):
        write_frame(tmp_path / name, grey_frame(80))
    with open_source(parse_source(str(tmp_path))) as source:
        assert [frame.name for frame in iter(source.read, None)] == ["a_bmp", "a_png", "b"]


@pytest.mark.real_data
def test_real_videos_deliver_the_frames_they_announce(real_videos: list[Path]) -> None:
    for path in real_videos:
        with open_source(parse_source(str(path))) as source:
            assert sum(1 for _ in iter(source.read, None)) == source.frame_count


@pytest.mark.real_data
def test_a_real_video_cut_short_gives_the_frames_before_the_cut(
    real_videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.mp4"
    data = min(real_videos, key=lambda path: path.stat().st_size).read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    with open_source(parse_source(str(cut))) as source:
        read = sum(1 for _ in iter(source.read, None))
        assert source.frame_count is not None
        assert 0 < read < source.frame_count
        assert f"after {read} frames, the file announces {source.frame_count}" in capsys.readouterr().err
