"""Where `dlv3deploy calibrate` writes: never over what no calibration made, and nothing old is left beside what is new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from calibrating import calibrate, refused, tree
from tiny_models import tiny_deeplab
from typer.testing import CliRunner

from dlv3deploy.cli import app

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


@pytest.mark.parametrize(("option", "suffix"), [("--to", "onnx"), ("--table", "json")])
def test_the_float_model_is_not_written_over(older: Path, images: Path, tmp_path: Path, option: str, suffix: str) -> None:
    link = tmp_path / f"link.{suffix}"
    link.symlink_to(older / "model.onnx")
    for place in [link] if option == "--table" else [link, older / "model.onnx"]:
        assert "the model to calibrate" in refused(older, "--images", images, "--method", "mse", option, place)


def test_two_results_of_one_name(older: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "int8.onnx")
    line = refused(older, "--images", images, "--to", tmp_path / "int8.onnx", "--table", tmp_path / "link.json")
    assert "two results" in line


def test_names_that_no_onnx_and_no_json_file_has(older: Path, images: Path, tmp_path: Path) -> None:
    assert "end it in .onnx" in refused(older, "--images", images, "--to", tmp_path / "int8.txt")
    assert "end it in .json" in refused(older, "--images", images, "--table", tmp_path / "photo.jpg")


def _another_network(path: Path) -> None:
    path.write_bytes(tiny_deeplab(seed=5).SerializeToString())


def _weights_elsewhere(path: Path) -> None:
    onnx.save_model(tiny_deeplab(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)


def _text(path: Path) -> None:
    path.write_text("shopping list")


def _object(path: Path) -> None:
    path.write_text('{"names": ["road"]}')


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("mine.onnx", _another_network),
        ("mine.onnx", _weights_elsewhere),
        ("mine.implicit.onnx", _another_network),
        ("mine.cache", _text),
        ("t.json", _object),
        ("t.report.json", _object),
        ("t.html", _text),
    ],
)
def test_a_file_that_no_calibration_made_stays(
    older: Path, images: Path, tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    make(out / name)
    before = tree(out)
    places = ("--to", out / "mine.onnx", "--table", out / "t.json", "--report")
    line = refused(older, "--images", images, "--method", "mse", *places)
    assert f"{out / name}: is there, and no calibration made it" in line and "choose another name: --" in line
    assert tree(out) == before


def test_an_earlier_calibration_is_replaced_whole_or_damaged(work: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    places = ("--to", out / "mine.onnx", "--table", out / "t.json", "--report")
    assert calibrate(work, "--images", images, "--method", "mse", *places).exit_code == 0
    first = tree(out)
    assert {"mine.onnx", "mine.implicit.onnx", "mine.cache", "t.json", "t.report.json", "t.html"} == set(first)
    assert calibrate(work, "--images", images, "--method", "min-max", *places).exit_code == 0
    second = tree(out)
    assert set(second) == set(first) and not any(second[name] == first[name] for name in first if name != "t.html")
    for name in set(first) - {"t.html"}:
        (out / name).write_bytes(second[name][: len(second[name]) // 3])
    assert calibrate(work, "--images", images, "--method", "min-max", *places).exit_code == 0
    assert tree(out) == second


def test_a_new_calibration_takes_the_report_on_the_old_one_away(work: Path, images: Path) -> None:
    words = ["calibrate", "--workspace", work, "--images", images, "--method"]
    assert CliRunner().invoke(app, [str(word) for word in (*words, "min-max")]).exit_code == 0
    reports = {"calibration.html", "calibration.report.json"}
    assert reports <= set(tree(work))
    assert calibrate(work, "--images", images, "--method", "min-max").exit_code == 0
    assert reports <= set(tree(work))  # of this very calibration
    assert calibrate(work, "--images", images, "--method", "mse").exit_code == 0
    assert not reports & set(tree(work))


def test_a_report_of_an_older_version_is_taken_away_too_and_what_is_none_stays(work: Path, images: Path) -> None:
    report, page = work / "calibration.report.json", work / "calibration.html"
    for content, stays in (('{"calibration": "a", "layers": [], "older": 1}', False), ('{"layers": []}', True), ("[{}]", True)):
        report.write_text(content)
        page.write_text("a page")
        assert calibrate(work, "--images", images, "--method", "mse" if stays else "min-max").exit_code == 0
        assert report.exists() == page.exists() == stays
        (work / "calibration.json").unlink()


def test_a_folder_where_a_file_is_to_go(older: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "is a folder" in refused(older, "--images", images, "--to", tmp_path / "folder")
    assert "is a folder" in refused(older, "--images", images, "--table", tmp_path / "folder")
