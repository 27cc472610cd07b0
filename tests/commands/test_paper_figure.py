"""`paper figure4`: what it prints, draws and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.commands.paper_figure import Settings


def figure4(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["paper", "figure4", *(str(a) for a in arguments)])


def refused(*arguments: object) -> str:
    done = figure4(*arguments)
    assert done.exit_code == 1, (done.stdout, done.stderr, done.exception)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_json_is_one_object_with_the_papers_map_filter_and_rates(tmp_path: Path) -> None:
    done = figure4("--json", "--workspace", tmp_path / "w")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["map", "kernel", "rates", "shares"]
    assert (found["map"], found["kernel"], found["rates"]) == (65, 3, list(range(1, 101)))
    assert list(found["shares"]) == ["1", "2", "3", "4", "6", "9"]
    assert all(len(shares) == 100 for shares in found["shares"].values())
    assert np.sum(list(found["shares"].values()), axis=0) == pytest.approx(np.ones(100))
    assert not (tmp_path / "w").exists()


def test_the_shares_are_those_of_a_convolution_of_ones(tmp_path: Path) -> None:
    found = json.loads(figure4("--json", "--map", 21, "--kernel", 5, "--rates", "3,1,8..9,8").stdout)
    assert found["rates"] == [1, 3, 8, 9]
    for index, rate in enumerate(found["rates"]):
        padded = np.pad(np.ones((21, 21), int), 2 * rate)
        offsets = range(0, 5 * rate, rate)
        weights = np.sum([padded[y : y + 21, x : x + 21] for y in offsets for x in offsets], axis=0)
        for taps, shares in found["shares"].items():
            assert shares[index] == pytest.approx((weights == int(taps)).mean())


def test_the_picture_lies_in_the_workspace_and_the_table_shows_the_papers_rates(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = figure4("--workspace", tmp_path)
    assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / "paper" / "figure4.png") as picture:
        assert picture.format == "PNG"
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert {(0xC8, 0x55, 0x3D), (0x3F, 0x8F, 0x6B), (0x34, 0x56, 0x7F)} <= colours  # the lines of 1, 4 and 9 valid weights
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if "│" in line]
    shown = {int(row[0]): [cell.strip() for cell in row[1:]] for row in rows}
    assert shown[12] == ["·", "·", "·", "13.6%", "46.6%", "39.8%"]
    assert shown[100] == ["100.0%", "·", "·", "·", "·", "·"]
    assert "figure4.png" in done.stdout


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("--map 65 --kernel 3 --rates 1..100", "figure4.png"),
        ("--map 33 --rates 12,24,36", "figure4-map-33-rates-12-24-36.png"),
        ("--kernel 5", "figure4-kernel-5.png"),
        ("--rates 1..4,8,99..100", "figure4-rates-1-to-4-8-99-to-100.png"),
    ],
)
def test_a_picture_of_other_settings_is_named_by_them(tmp_path: Path, options: str, name: str) -> None:
    pytest.importorskip("matplotlib")
    done = figure4(*options.split(), "--workspace", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in (tmp_path / "paper").iterdir()] == [name]


def test_the_name_of_many_rates_is_short_and_differs_with_each() -> None:
    many = tuple(range(1, 2000, 2))
    names = [Settings(rates=rates).file_name for rates in (many, many[:-1], many[1:])]
    assert len(set(names)) == 3 and max(map(len, names)) < 140


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_the_picture_has_the_format_that_its_name_says(tmp_path: Path, name: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    done = figure4("--to", tmp_path / name, "--rates", "6,12,18", "--kernel", "1", "--json")
    assert done.exit_code == 0, done.stderr
    json.loads(done.stdout)
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize("rates", ["", "0", "0..4", "5..3", "1..", "..9", "a", "1.5", "1,,2", "1..9999999", "-3", "1..2..3"])
def test_rates_that_are_none(rates: str) -> None:
    line = refused("--rates", rates, "--json")
    assert "1..100 or 6,12,18" in line


@pytest.mark.parametrize("kernel", [2, 4, 0, -1, 33, 10**9])
def test_even_and_huge_filters(kernel: int) -> None:
    assert "odd side" in refused("--kernel", kernel, "--json")


@pytest.mark.parametrize("side", [0, -65, 10**9])
def test_maps_without_positions_or_too_large(side: int) -> None:
    assert "--map 65" in refused("--map", side, "--json")


def test_the_largest_request_is_answered() -> None:
    found = json.loads(figure4("--json", "--map", 16384, "--kernel", 31, "--rates", "1..400,16384").stdout)
    assert found["shares"]["1"][-1] == 1


def test_a_name_that_is_no_picture_leaves_nothing(tmp_path: Path) -> None:
    assert ".png, .svg, .pdf" in refused("--to", tmp_path / "figure.txt")
    assert "is a folder" in refused("--to", _folder(tmp_path / "folder.png"))
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_drawing_that_fails_keeps_the_picture_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    (tmp_path / "figure4.png").write_bytes(b"an older picture")

    def half(_: object, path: Path, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure.Figure, "savefig", half)
    assert "unchanged" in refused("--to", tmp_path / "figure4.png")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"an older picture"]


def test_without_matplotlib_only_the_picture_is_missing(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        hidden = "import sys; sys.modules['matplotlib'] = sys.modules['torch'] = None; from dlv3deploy.cli import main; main()"
        program = [sys.executable, "-c", hidden, "paper", "figure4", "--workspace", str(tmp_path / "w"), *arguments]
        return subprocess.run(program, capture_output=True, text=True, check=False)

    assert json.loads(run("--json").stdout)["map"] == 65
    drawn = run()
    assert drawn.returncode == 1
    assert drawn.stderr.startswith("error: this command needs matplotlib")
    assert drawn.stdout == ""
    assert not (tmp_path / "w").exists()
