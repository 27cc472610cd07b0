"""Label maps and masks: class ids are read as they were meant, or not at all."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlv3deploy.core.classes import Classes, anonymous_classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Mask, check_label, colours_of, read_label, write_mask

Image = pytest.importorskip("PIL.Image")

THREE = Classes(("a", "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), 11)


def ids(count: int, height: int = 12, width: int = 20) -> Mask:
    return (np.arange(height * width) % count).reshape(height, width).astype(np.uint8)


def png(depth: int, colour_type: int, rows: list[bytes], width: int) -> bytes:
    """A PNG file by the standard, of any bit depth."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(3 * 2**depth)) if colour_type == 3 else b""
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + pixels + chunk(b"IEND", b"")


def test_grey_values_are_ids(tmp_path: Path) -> None:
    Image.fromarray(ids(256)).save(tmp_path / "a.png")
    assert np.array_equal(read_label(tmp_path / "a.png"), ids(256))


def test_palette_indices_are_ids_whatever_the_colours(tmp_path: Path) -> None:
    image = Image.fromarray(ids(256))
    image.putpalette([255] * 768)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_label(tmp_path / "a.png"), ids(256))


@pytest.mark.parametrize(("depth", "row"), [(1, b"\x50"), (2, b"\x1b"), (4, b"\x01\x2f")])
def test_palettes_of_few_bits_hold_ids_too(tmp_path: Path, depth: int, row: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png(depth, 3, [row], 4))
    expected = {1: [0, 1, 0, 1], 2: [0, 1, 2, 3], 4: [0, 1, 2, 15]}[depth]
    assert read_label(tmp_path / "a.png").tolist() == [expected]


def test_a_black_and_white_file_holds_classes_0_and_1(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1, 0, [b"\xa0"], 3))
    assert read_label(tmp_path / "a.png").tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("depth", "colour_type", "row", "kind"),
    [
        (2, 0, b"\x1b", "L;2"),  # Pillow would return 0, 85, 170, 255
        (4, 0, b"\x12\x34", "L;4"),
        (16, 0, bytes(8), "I;16"),
        (8, 2, bytes(12), "RGB"),
        (8, 4, bytes(8), "LA"),
        (8, 6, bytes(16), "RGBA"),
    ],
)
def test_pixels_that_are_no_ids_are_refused(tmp_path: Path, depth: int, colour_type: int, row: bytes, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(png(depth, colour_type, [row], 4))
    with pytest.raises(UserError, match=f"holds {kind}.* pixels, not class ids"):
        read_label(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP"])
def test_other_formats_are_refused_under_the_name_of_a_png(tmp_path: Path, kind: str) -> None:
    Image.fromarray(ids(3)).save(tmp_path / "a.png", kind)
    with pytest.raises(UserError, match="is no whole PNG file"):
        read_label(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"junk", bytes(range(256))])
def test_junk_is_refused_by_its_path_and_the_rule_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_label(path)
    assert str(refused.value) == (
        f"{path}: is no whole PNG file; labels are 8-bit grey or palette PNG files whose values are class ids"
    )


@pytest.mark.parametrize("level", [0, 6])
def test_a_damaged_file_is_never_read_as_other_ids(tmp_path: Path, level: int) -> None:
    label = np.kron(ids(9, 3, 4), np.ones((5, 6), np.uint8))
    file = io.BytesIO()
    Image.fromarray(label).save(file, "PNG", compress_level=level)
    whole, path = file.getvalue(), tmp_path / "a.png"
    end = len(whole) - 12  # behind it the end chunk alone, without which all ids are there
    for length in range(0, end, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_label(path)
    for i in range(0, len(whole), 3):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        if i < end:
            with pytest.raises(UserError):
                read_label(path)
        else:
            with suppress(UserError):
                assert np.array_equal(read_label(path), label)
    path.write_bytes(whole)
    assert np.array_equal(read_label(path), label)


def test_a_file_that_claims_to_be_enormous_is_refused(tmp_path: Path) -> None:
    content = bytearray(png(8, 0, [bytes(4)], 4))
    content[16:24] = struct.pack(">II", 200_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(bytes(content))
    with pytest.raises(UserError, match="is not a readable label"):
        read_label(tmp_path / "a.png")


def test_missing_files_folders_and_texts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("road road sky")
    (tmp_path / "empty.png").touch()
    for name in ("none.png", "text.png", "empty.png", "."):
        with pytest.raises(UserError):
            read_label(tmp_path / name)


@pytest.mark.parametrize(("value", "is_known"), [(0, True), (2, True), (11, True), (3, False), (255, False)])
def test_a_label_holds_classes_and_ignored_pixels_alone(value: int, is_known: bool) -> None:
    label = np.array([[0, value]], np.uint8)
    if is_known:
        check_label(label, THREE, Path("a.png"))
        return
    with pytest.raises(UserError, match=rf"a\.png holds label id {value}: ids are 0 to 2, or 11"):
        check_label(label, THREE, Path("a.png"))


def test_several_unknown_ids_are_named() -> None:
    with pytest.raises(UserError, match="ids 3, 77: "):
        check_label(np.array([[3, 77, 1]], np.uint8), THREE, Path("a.png"))


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda size: arrays(np.uint8, size)),
    st.sampled_from([1, 2, 3, 15, 16, 17, 200, 255]),
)
@settings(deadline=None, max_examples=60)
def test_a_mask_is_read_as_it_was_written(tmp_path_factory: Any, mask: Mask, classes: int) -> None:
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    write_mask(path, mask, anonymous_classes(classes))  # ids beyond the classes too, such as 255
    assert np.array_equal(read_label(path), mask)


def test_viewers_show_a_mask_in_its_classes_colours(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.array([[0, 1, 2, 255]], np.uint8), THREE)
    with Image.open(tmp_path / "m.png") as image:
        assert np.array_equal(np.array(image.convert("RGB")), [[*THREE.palette, (0, 0, 0)]])


def test_the_colour_table_is_blue_green_red_and_black_beyond_the_classes() -> None:
    table = colours_of(THREE)
    assert table.shape == (256, 3)
    assert table[:3].tolist() == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert not table[3:].any()
