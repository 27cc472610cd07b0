"""Pictures of every kind become BGR frames, and damaged ones become one clear error."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Frame, list_images, read_frame, write_frame

cv2 = pytest.importorskip("cv2")
Image = pytest.importorskip("PIL.Image")


def picture(height: int = 48, width: int = 64) -> Frame:
    """Smooth enough for JPEG, and different in every quarter."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y / height, 255 * x / width, 128 + 0 * x], axis=2).astype(np.uint8)


def encoded(image: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgb_file(kind: str, **options: Any) -> bytes:
    return encoded(Image.fromarray(picture()[:, :, ::-1]), kind, **options)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_colours_are_read_as_blue_green_red(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(rgb_file(kind))
    assert np.array_equal(read_frame(tmp_path / "a"), picture())


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("JPEG", {"progressive": True}), ("WEBP", {})])
def test_lossy_files_are_read_as_nearly_the_picture(tmp_path: Path, kind: str, options: Any) -> None:
    (tmp_path / "a").write_bytes(rgb_file(kind, **options))
    assert np.abs(read_frame(tmp_path / "a").astype(int) - picture()).mean() < 4


def test_grey_files_have_three_equal_channels(tmp_path: Path) -> None:
    grey = picture()[:, :, 0]
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(grey), "PNG"))
    assert np.array_equal(read_frame(tmp_path / "a.png"), np.stack([grey] * 3, axis=2))


def test_alpha_is_left_out(tmp_path: Path) -> None:
    alpha = np.full((48, 64, 1), 10, np.uint8)
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(np.concatenate([picture()[:, :, ::-1], alpha], axis=2)), "PNG"))
    assert np.array_equal(read_frame(tmp_path / "a.png"), picture())


def test_of_16_bits_the_upper_eight_are_read(tmp_path: Path) -> None:
    done, data = cv2.imencode(".png", picture().astype(np.uint16) * 257)
    assert done
    (tmp_path / "a.png").write_bytes(data.tobytes())
    assert np.abs(read_frame(tmp_path / "a.png").astype(int) - picture()).max() <= 1


def test_a_camera_held_upright_gives_an_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90° clockwise to view
    (tmp_path / "a.jpg").write_bytes(rgb_file("JPEG", quality=95, exif=exif))
    expected = np.rot90(picture(), -1)
    found = read_frame(tmp_path / "a.jpg")
    assert found.shape == (64, 48, 3)
    assert np.abs(found.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path: Path, kind: str) -> None:
    whole = rgb_file(kind)
    lengths = sorted({1, 2, 3, 8, len(whole) // 3, len(whole) // 2, len(whole) - 20})
    for length in lengths:
        (tmp_path / "a").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut short|not a readable picture"):
            read_frame(tmp_path / "a")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_opencv_4_would_paint_grey_is_refused_too(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rgb_file(kind)
    monkeypatch.setattr(cv2, "imdecode", lambda data, how: picture())  # OpenCV 4: a picture, whatever is missing
    for length in np.linspace(len(whole) // 3, len(whole) - 12, 9).astype(int):
        (tmp_path / "a").write_bytes(whole[:length])
        with pytest.raises(UserError, match="is cut short"):
            read_frame(tmp_path / "a")
    (tmp_path / "a").write_bytes(whole)
    read_frame(tmp_path / "a")


def with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    segment = b"Exif\0\0" + thumbnail
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def test_the_end_of_a_thumbnail_is_not_taken_for_the_end_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = with_thumbnail(rgb_file("JPEG"), encoded(Image.fromarray(picture(12, 16)), "JPEG"))
    (tmp_path / "a.jpg").write_bytes(whole)
    assert read_frame(tmp_path / "a.jpg").shape == (48, 64, 3)
    monkeypatch.setattr(cv2, "imdecode", lambda data, how: picture())
    (tmp_path / "a.jpg").write_bytes(whole[:-200])
    with pytest.raises(UserError, match="is cut short"):
        read_frame(tmp_path / "a.jpg")


@pytest.mark.parametrize("appended", [b"\0" * 50_000, b"ftypmp42" * 10_000, b"\xff" * 9000])
def test_what_phones_append_to_a_picture_does_no_harm(tmp_path: Path, appended: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(rgb_file("JPEG") + appended)
    assert read_frame(tmp_path / "a.jpg").shape == (48, 64, 3)


@pytest.mark.parametrize("content", [b"", b"\0", b"this is a text, not a picture\n" * 9, b"\xff\xd8\xff", b"BM" + b"\xff" * 99])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jpg"):
        read_frame(tmp_path / "a.jpg")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_frame(path)


def test_names_may_hold_any_letter(tmp_path: Path) -> None:
    path = tmp_path / "straße 東京 🚗.png"
    write_frame(path, picture())
    assert np.array_equal(read_frame(path), picture())
    assert list_images(tmp_path) == [path]


@pytest.mark.parametrize("name", ["picture.xyz", "picture", "picture.txt"])
def test_a_suffix_that_names_no_picture_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"use \.png or \.jpg"):
        write_frame(tmp_path / name, picture())
    assert not list(tmp_path.iterdir())


def test_a_folders_pictures_are_its_visible_files_by_name(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.tiff", ".a.123.partial.png", "notes.txt", "d.webp.txt", "e"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a.png", "b.JPG", "c.tiff"]
