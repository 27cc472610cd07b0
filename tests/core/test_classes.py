"""Classes: what holds of them, and that every damaged description is one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from core.json_damage import any_json, damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from dlv3deploy.core.classes import CAMVID, CITYSCAPES, KNOWN, VOC, Classes, anonymous_classes, palette_for, read_classes
from dlv3deploy.core.errors import UserError

COLOURS = st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))


@st.composite
def any_classes(draw: st.DrawFn) -> Classes:
    names = draw(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=6, unique=True))
    palette = draw(st.lists(COLOURS, min_size=len(names), max_size=len(names)))
    return Classes(tuple(names), tuple(palette), draw(st.integers(len(names), 255)))


@given(any_classes())
@settings(deadline=None, max_examples=60)
def test_classes_survive_json(classes: Classes) -> None:
    assert Classes.from_json(json.loads(json.dumps(classes.to_json())), "file") == classes


def test_palette_and_ignore_index_may_be_left_out() -> None:
    assert Classes.from_json({"names": ["a", "b"]}, "file") == Classes(("a", "b"), palette_for(2), 255)


@given(any_json)
@settings(deadline=None, max_examples=150)
def test_any_json_is_a_description_or_a_user_error(data: Any) -> None:
    try:
        Classes.from_json(data, "file")
    except UserError:
        return
    assert isinstance(data, dict)


@given(damaged({"names": ["a", "b"], "palette": [[0, 0, 0], [1, 2, 255]], "ignore_index": 9}))
@settings(deadline=None, max_examples=150)
def test_a_damaged_description_is_a_description_or_a_user_error(data: Any) -> None:
    try:
        classes = Classes.from_json(data, "file")
    except UserError:
        return
    assert all(isinstance(name, str) and name for name in classes.names)
    assert all(type(v) is int and 0 <= v <= 255 for colour in classes.palette for v in colour)
    assert type(classes.ignore_index) is int and len(classes) <= classes.ignore_index <= 255


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "road",
        7,
        {},
        {"names": "road"},  # would be four classes: r, o, a, d
        {"names": None},
        {"names": {"road": 0}},
        {"names": []},
        {"names": ["road", None]},
        {"names": ["road", 1]},
        {"names": ["road", ""]},
        {"names": ["road", "\ud800"]},  # half a surrogate pair, which no file could hold
        {"names": ["road", "road"]},  # one of the two IoUs would be lost
        {"names": [f"{i}" for i in range(256)]},
        {"names": ["road"], "palette": None},
        {"names": ["road"], "palette": []},
        {"names": ["road"], "palette": [[1, 2]]},
        {"names": ["road"], "palette": ["123"]},
        {"names": ["road"], "palette": [[0, 0, 256]]},
        {"names": ["road"], "palette": [[0, 0, -1]]},
        {"names": ["road"], "palette": [[0, 0, 1.5]]},
        {"names": ["road"], "palette": [[0, 0, float("inf")]]},
        {"names": ["road"], "ignore_index": None},
        {"names": ["road"], "ignore_index": True},
        {"names": ["road"], "ignore_index": 254.5},
        {"names": ["road"], "ignore_index": float("inf")},
        {"names": ["road"], "ignore_index": float("nan")},
        {"names": ["road"], "ignore_index": 0},
        {"names": ["road"], "ignore_index": -1},
        {"names": ["road"], "ignore_index": 256},
    ],
)
def test_what_is_no_description_is_refused(data: Any) -> None:
    with pytest.raises(UserError):
        Classes.from_json(data, "file")


def test_numbers_may_be_digits_as_the_command_line_has_them() -> None:
    data = {"names": ["road"], "palette": [["128", "64", "0"]], "ignore_index": "11"}
    assert Classes.from_json(data, "--class-names") == Classes(("road",), ((128, 64, 0),), 11)


@pytest.mark.parametrize("content", [b"", b"{", b'{"names": ["a"', b"\xff\xfe", b"[" * 100_000, b"null", b"[1]", b"NaN"])
def test_a_file_that_describes_nothing_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "classes.json").write_bytes(content)
    with pytest.raises(UserError, match=r"classes\.json: is "):
        read_classes(str(tmp_path / "classes.json"))


def test_classes_are_read_by_name_or_from_a_file(tmp_path: Path) -> None:
    for name, classes in KNOWN.items():
        assert read_classes(name) is classes
    (tmp_path / "my.json").write_text('{"names": ["straße"]}', encoding="utf-8")
    assert read_classes(str(tmp_path / "my.json")).names == ("straße",)
    with pytest.raises(UserError, match="use voc, camvid, cityscapes, ade20k, cocostuff or the path"):
        read_classes("pascal")


def test_the_known_sets_have_their_published_classes_and_colours() -> None:
    assert (len(VOC), len(CAMVID), len(CITYSCAPES)) == (21, 11, 19)
    voc = dict(zip(VOC.names, VOC.palette, strict=True))
    assert voc["background"] == (0, 0, 0)
    assert voc["person"] == (192, 128, 128)  # as the VOC development kit's colour map has it
    assert voc["tvmonitor"] == (0, 64, 128)
    assert dict(zip(CITYSCAPES.names, CITYSCAPES.palette, strict=True))["car"] == (0, 0, 142)


def test_made_palettes_are_distinct_up_to_the_last_class() -> None:
    assert len(set(palette_for(255))) == 255
    assert len(anonymous_classes(255)) == 255
