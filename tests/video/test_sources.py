"""What every source promises, and what each kind of source says when it cannot deliver."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from source_contract import SourceContract, some
from video_stand_ins import MjpegServer, RtspServer, frames_of, grey_frame, write_video

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import write_frame
from dlv3deploy.video import Source, open_source, parse_source


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
        return f"{mjpeg.url}/camera#reconnect=0"

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
