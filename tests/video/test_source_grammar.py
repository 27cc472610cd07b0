"""Every way to name a source, and every way to get it wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dlv3deploy.core.errors import UserError
from dlv3deploy.video.gstreamer import of_csi, whole_pipeline
from dlv3deploy.video.source import parse_source


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with b.png, a.JPG, clip.mp4, notes.txt, an empty folder and a data set's folder; it is the current one."""
    for name in ("shots/b.png", "shots/a.JPG", "shots/notes.txt", "clip.mp4", "empty/.keep", "set/images/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "device"), [("0", 0), ("3", 3), ("camera 2", 2), ("camera:2", 2), ("Camera 10", 10), ("/dev/video4", 4)]
)
def test_a_number_names_a_camera(text: str, device: int) -> None:
    address = parse_source(text)
    assert (address.kind, address.device) == ("camera", device)


@pytest.mark.parametrize(
    ("text", "kind", "names"),
    [
        ("clip.mp4", "file", ["clip.mp4"]),
        ("shots/notes.txt", "file", ["notes.txt"]),
        ("shots/b.png", "image", ["b.png"]),
        ("shots/a.JPG", "image", ["a.JPG"]),
        ("shots", "folder", ["a.JPG", "b.png"]),
        ("shots/", "folder", ["a.JPG", "b.png"]),
        ("shots/*", "glob", ["a.JPG", "b.png"]),
        ("**/*.png", "glob", ["1.png", "b.png"]),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_path_is_what_lies_there(text: str, kind: str, names: list[str]) -> None:
    address = parse_source(text)
    assert address.kind == kind
    assert [path.name for path in address.paths] == names


def test_a_file_uri_is_its_path(here: Path) -> None:
    spaced = here / "my clip.mp4"
    spaced.write_bytes(b"x")
    assert parse_source(spaced.as_uri()).paths == (spaced,)
    assert parse_source(f"file://localhost{here}/clip.mp4").paths == (here / "clip.mp4",)


def test_a_name_with_a_glob_character_that_exists_is_that_file(here: Path) -> None:
    (here / "clip[1].mp4").write_bytes(b"x")
    assert parse_source("clip[1].mp4").kind == "file"


@pytest.mark.parametrize("url", ["rtsp://10.0.0.7:8554/cam", "http://host/video.mjpg", "HTTPS://host/a.mp4"])
def test_a_stream_keeps_its_url(url: str) -> None:
    address = parse_source(url)
    assert (address.kind, address.url) == ("stream", url)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:s3cret@10.0.0.7/cam", "rtsp://admin:***@10.0.0.7/cam"),
        ("http://10.0.0.7/mjpg?user=a&pwd=s3cret&fps=5", "http://10.0.0.7/mjpg?user=a&pwd=***&fps=5"),
        ("gst:rtspsrc location=rtsp://u:s3cret@h/cam ! decodebin", "gst:rtspsrc location=rtsp://u:***@h/cam ! decodebin"),
        ("gst:rtspsrc user-id=u user-pw=s3cret ! decodebin", "gst:rtspsrc user-id=u user-pw=*** ! decodebin"),
    ],
)
def test_a_password_is_used_but_not_shown(text: str, shown: str) -> None:
    address = parse_source(text)
    assert "s3cret" in address.url
    assert address.text == shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names nothing"),
        ("nowhere.mp4", "does not exist"),
        ("-1", "does not exist"),
        ("empty", "without pictures"),
        ("set", "did you mean set/images"),
        ("shots/*.bmp", "matches no file"),
        ("shots/*.txt", "none of them a picture"),
        ("ftp://host/clip.mp4", "ftp:// is not served"),
        ("rtsp://", "names no server"),
        ("file:///nowhere.mp4", "does not exist"),
        ("/dev/null", "neither a file nor a folder"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_names_no_source_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_source(text)


def test_an_unknown_scheme_is_told_what_works() -> None:
    with pytest.raises(UserError) as caught:
        parse_source("gopher://host/x")
    assert all(word in caught.value.remedy for word in ("camera", "rtsp://", "http://", "file://", "folder"))


@pytest.mark.parametrize(
    ("text", "kind", "device", "settings"),
    [
        ("v4l2:///dev/video2", "camera", 2, {}),
        (
            "v4l2:///dev/video0?width=1280&height=720&fps=29.97&format=MJPG",
            "camera",
            0,
            {"width": "1280", "height": "720", "fps": "29.97", "format": "MJPG"},
        ),
        ("v4l2://1?fps=5", "camera", 1, {"fps": "5"}),
        ("csi://0?width=1920&height=1080&flip=2", "csi", 0, {"width": "1920", "height": "1080", "flip": "2"}),
        ("test://", "drawn", 0, {}),
        (
            "test://7?size=96x128&fps=5&seconds=2&live=yes",
            "drawn",
            7,
            {"size": "96x128", "fps": "5", "seconds": "2", "live": "yes"},
        ),
    ],
)
def test_a_device_is_named_with_what_is_asked_for(text: str, kind: str, device: int, settings: dict[str, str]) -> None:
    address = parse_source(text)
    assert (address.kind, address.device, dict(address.settings)) == (kind, device, settings)
    assert address.is_live == (kind != "drawn" or settings.get("live") == "yes")


def test_a_pipeline_is_taken_as_it_stands() -> None:
    text = "videotestsrc pattern=ball ! video/x-raw, width=64"
    for address in (parse_source(f"gst:{text}"), parse_source(f"GST:// {text}")):
        assert (address.kind, address.url) == ("gstreamer", text)
    assert (
        whole_pipeline(text) == f"{text} ! videoconvert ! video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )
    assert whole_pipeline("a ! appsink") == "a ! appsink"


def test_a_csi_port_is_a_pipeline_of_nvidia_s_elements() -> None:
    pipeline = of_csi(1, {"width": "640", "height": "480", "fps": "60", "flip": "2"})
    assert pipeline.startswith(
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM), width=640, height=480, framerate=60/1 !"
    )
    assert "nvvidconv flip-method=2" in pipeline and pipeline.endswith("appsink drop=true max-buffers=1 sync=false")


def test_what_an_rtsp_server_is_not_sent_stands_behind_a_hash() -> None:
    address = parse_source("rtsp://u:pw@host/cam?channel=1#transport=udp&latency=200")
    assert address.url == "rtsp://u:pw@host/cam?channel=1"
    assert dict(address.settings) == {"transport": "udp", "latency": "200"} and "pw" not in address.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v4l2:///dev/vide0", "write it as v4l2:///dev/video0"),
        ("v4l2://0?width=wide", "width is 'wide'"),
        ("v4l2://0?width=0", "a whole number from 1 to 16384"),
        ("v4l2://0?zoom=2", "there is no setting 'zoom'"),
        ("v4l2://0?fps=nan", "fps is 'nan'"),
        ("v4l2://0?format=MJPEG", "four letters"),
        ("v4l2://0?width", "no list of KEY=VALUE"),
        ("csi://", "nothing is no number"),
        ("csi://front", "front is no number"),
        ("test://0?live=maybe", "yes or no"),
        ("test://0?size=small", "HEIGHTxWIDTH"),
        ("test://0?fps=0", "a number above 0"),
        ("gst:", "names no pipeline"),
        ("rtsp://host/cam#transport=pigeon", "tcp or udp"),
        ("http://host/cam#latency=1", "there is no setting 'latency'; reconnect="),
        ("rtsp://host/cam#reconnect=-1", "a whole number from 0 to 604800"),
    ],
)
def test_a_setting_that_is_none_is_refused_with_what_works(text: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        parse_source(text)
