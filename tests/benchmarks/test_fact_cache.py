"""What was measured is not measured again, until something that it depends on changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from fact_cache import Fact, digest, recall, remembered, source_hash


class Counting:
    """Makes a fact, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Fact:
        self.calls += 1
        return {"number": self.calls}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "fact.json"


def test_a_fact_of_the_same_key_is_remembered_and_of_another_made_anew(path: Path) -> None:
    make = Counting()
    keys = [{"model": "a", "count": 1}, {"count": 1, "model": "a"}, {"model": "b", "count": 1}, {"model": "a", "count": 1}]
    assert [remembered(path, key, make)["number"] for key in keys] == [1, 1, 2, 3]


def test_a_fact_that_no_longer_holds_is_made_anew(path: Path) -> None:
    make = Counting()
    remembered(path, {}, make)
    assert remembered(path, {}, make, lambda fact: fact["number"] > 1) == {"number": 2}


def test_what_was_interrupted_leaves_nothing_and_what_was_there_stays(path: Path) -> None:
    def interrupted() -> Fact:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remembered(path, {"model": "a"}, interrupted)
    assert recall(path, {"model": "a"}) is None
    remembered(path, {"model": "a"}, Counting())
    with pytest.raises(KeyboardInterrupt):
        remembered(path, {"model": "b"}, interrupted)
    assert recall(path, {"model": "a"}) == {"number": 1}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": {}}', '{"key": {}, "fact": 3}'])
def test_a_damaged_file_counts_as_none(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    assert recall(path, {}) is None
    assert remembered(path, {}, Counting()) == {"number": 1}


def test_a_digest_does_not_depend_on_order_and_does_on_values() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_the_hash_of_source_changes_with_any_python_file_below(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.py").write_text("x = 1", encoding="utf-8")
    before = source_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    assert source_hash(tmp_path) == before
    (tmp_path / "inner" / "a.py").write_text("x = 2", encoding="utf-8")
    assert source_hash(tmp_path) != before
