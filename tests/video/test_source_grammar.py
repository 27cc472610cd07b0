"""Every way to name a source, and every way to get it wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlv3deploy.core.errors import UserError
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


def test_a_password_is_used_but_not_shown() -> None:
    address = parse_source("rtsp://admin:s3cret@10.0.0.7/cam")
    assert "s3cret" in address.url
    assert address.text == "rtsp://admin:***@10.0.0.7/cam"


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
