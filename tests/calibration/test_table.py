from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlv3deploy.calibration.fidelity import Fidelity
from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.mixed import Point
from dlv3deploy.calibration.table import CalibrationKey, CalibrationTable, TriedMethod
from dlv3deploy.core.errors import UserError

KEY = CalibrationKey("a" * 64, "b" * 64, 3, (64, 96), "rgb stretch", "auto")
TABLE = CalibrationTable(
    KEY,
    {"image": Range(-1.5, 2.25), "/aspp/Concat_output_0": Range(0.0, 6.0)},
    ("pooled",),
    "mse+equalise",
    Fidelity(31.25, 0.995, 0.001),
    "c" * 64,
    (TriedMethod("min-max", Fidelity(20.5, 0.9, 0.25), 1.5),),
    (Point(1, 0.75, 0.0125),),
)


def test_a_table_survives_the_disk(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "calibration.json")
    assert CalibrationTable.read(tmp_path / "calibration.json") == TABLE


@given(low=st.floats(allow_nan=False, allow_infinity=False), high=st.floats(allow_nan=False, allow_infinity=False))
def test_ranges_survive_to_the_last_digit(low: float, high: float, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("table") / "calibration.json"
    table = replace(TABLE, ranges={"x": Range(low, high)})
    table.write(path)
    assert CalibrationTable.read(path) == table


@pytest.mark.parametrize("name", [field.name for field in fields(CalibrationKey)])
def test_every_field_of_the_key_changes_its_digest(name: str) -> None:
    other = {"images": 4, "resolution": (96, 64)}.get(name, "another")
    assert replace(KEY, **{name: other}).digest() != KEY.digest()
    assert replace(KEY).digest() == KEY.digest()


def stored(tmp_path: Path) -> dict:
    TABLE.write(tmp_path / "whole.json")
    return json.loads((tmp_path / "whole.json").read_text())


@pytest.mark.parametrize(
    "missing", [*(field.name for field in fields(CalibrationKey)), "ranges", "kept_float", "chosen", "fidelity", "trials"]
)
def test_a_table_without_one_of_its_parts_says_how_to_make_it_again(tmp_path: Path, missing: str) -> None:
    data = stored(tmp_path)
    del data[missing]
    (tmp_path / "calibration.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=rf"calibration\.json: is no calibration table \('{missing}'\).*dlv3deploy calibrate"):
        CalibrationTable.read(tmp_path / "calibration.json")


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 64},
        {"resolution": [64, 96, 3]},
        {"resolution": ["a", "b"]},
        {"ranges": {"x": [1]}},
        {"ranges": {"x": "wide"}},
        {"ranges": [1, 2]},
        {"images": None},
        {"fidelity": 30},
        {"trials": [{"method": "mse"}]},
        {"mixtures": [1]},
        {"kept_float": 7},
    ],
    ids=str,
)
def test_a_table_with_values_of_another_kind_is_refused_in_one_line(tmp_path: Path, change: dict) -> None:
    (tmp_path / "calibration.json").write_text(json.dumps(stored(tmp_path) | change))
    with pytest.raises(UserError, match="is no calibration table") as refused:
        CalibrationTable.read(tmp_path / "calibration.json")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "null", '"text"', "{}"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(UserError, match=r"calibration\.json"):
        CalibrationTable.read(tmp_path / "calibration.json")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json"):
        CalibrationTable.read(tmp_path / "nowhere.json")
