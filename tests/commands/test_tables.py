"""Tables for people: nothing is cut, whatever the width of the terminal, and titles are plain lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

from dlv3deploy.cli import app
from dlv3deploy.commands.tables import print_groups, print_records, print_table

NAME = "/model/backbone/features.14/block/block.1/block.1.0/Conv"
HEADER = ("name", "kernel", "MACs")
RECORDS = [(NAME, "3×3", "508.7 M"), ("/a/Conv", "1×1", "2.0 M")]


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def lines_at(width: int | None, *arguments: object) -> list[str]:
    """What a command prints in a terminal of this width; None is a pipe."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": str(width) if width else None})
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def table_of(*rows: tuple[str, ...]) -> Table:
    table = Table("what", "found")
    for row in rows:
        table.add_row(*row)
    return table


def test_words_are_wrapped_and_only_what_is_too_long_is_folded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(
        "a title of more than forty columns, in one line", table_of(("a", "some words " * 9), ("b", "x" * 99)), ["note"]
    )
    title, *body, note = capsys.readouterr().out.splitlines()
    assert (title, note) == ("a title of more than forty columns, in one line", "note")
    assert max(map(len, body)) <= 40
    found = [line.split("│")[2].strip() for line in body if line.count("│") == 3]
    assert all(cell in " ".join(["some words"] * 9) or set(cell) == {"x"} for cell in found)
    assert "".join(found).count("x") == 99 and "…" not in "".join(body)


@pytest.mark.usefixtures("no_terminal")
def test_a_pipe_gets_every_value_in_one_piece(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title", table_of(("a", "x" * 300), ("b", "some words " * 40)))
    lines = capsys.readouterr().out.splitlines()
    assert any("x" * 300 in line for line in lines)


def test_texts_are_taken_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[bold]title[/] :smile:", table_of(("[red]", "[/] :car: [a, b]")), ["[note]"])
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("[bold]title[/] :smile:", "[red]", "[/] :car: [a, b]", "[note]"))


def test_a_record_that_is_too_long_for_a_line_has_its_name_above_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    print_records("title", HEADER, RECORDS)
    assert capsys.readouterr().out.splitlines() == [
        "title",
        "name",
        "  kernel     MACs",
        NAME,
        "     3×3  508.7 M",
        "/a/Conv",
        "     1×1    2.0 M",
    ]
    monkeypatch.setenv("COLUMNS", "90")
    print_records("title", HEADER, RECORDS)
    assert any(NAME in line and "508.7 M" in line for line in capsys.readouterr().out.splitlines())


@pytest.mark.usefixtures("no_terminal")
def test_in_a_pipe_a_record_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_records("title", HEADER, [(NAME * 5, "3×3", "508.7 M")])
    assert any(NAME * 5 in line and "508.7 M" in line for line in capsys.readouterr().out.splitlines())


def test_groups_stand_below_what_they_have_in_common(capsys: pytest.CaptureFixture[str]) -> None:
    print_groups("title", ("name", "size"), [("small", [("a", "1"), ("b", "2")]), ("large", [("c", "3")])])
    rows = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert rows == ["small:", "a", "b", "large:", "c"]


@pytest.fixture
def long_names(tmp_path: Path) -> Path:
    """A self-describing ONNX file whose nodes are called as PyTorch's exporter calls them."""
    pytest.importorskip("onnx")
    from tiny_models import tiny_deeplab, tiny_spec

    from dlv3deploy.core.graph import embed_spec

    model = tiny_deeplab()
    for node in model.graph.node:
        node.name = f"/model/backbone/features.14/block/block.1/{node.name}/Conv"
    embed_spec(model, tiny_spec())
    path = tmp_path / "long.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("width", [80, 120, None])
def test_inspect_cuts_nothing(long_names: Path, width: int | None) -> None:
    lines = lines_at(width, "inspect", long_names, "--all")
    assert not any("…" in line for line in lines)
    if width:
        assert max(len(line) for line in lines if str(long_names) not in line) <= width
    facts = json.loads("".join(lines_at(width, "inspect", long_names, "--json")))
    assert len(facts["convolutions"]) > 5
    for convolution in facts["convolutions"]:
        assert any(convolution["name"] in line for line in lines)
        shape = "×".join(map(str, convolution["input_shape"]))
        assert any(f"{convolution['macs'] / 1e6:.1f} M" in line and shape in line for line in lines)


@pytest.fixture(scope="module")
def networks() -> list[str]:
    pytest.importorskip("torch")
    return [row["name"] for row in json.loads("".join(lines_at(None, "paper", "networks", "--json")))["networks"]]


@pytest.mark.parametrize("width", [80, 120, None])
def test_the_networks_are_readable(networks: list[str], width: int | None) -> None:
    lines = lines_at(width, "paper", "networks")
    assert lines[0] == "published networks and ours"
    assert max(map(len, lines)) <= (width or 120) and not any("…" in line for line in lines)
    names = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert [name for name in names if name in networks] == networks


@pytest.mark.parametrize("number", range(1, 8))
def test_no_line_of_a_papers_table_is_wider_than_a_small_terminal(number: int) -> None:
    title, unit, *lines = lines_at(80, "paper", f"table{number}")
    assert title.startswith(f"Table {number}: ") and unit == "mIoU in percent"
    assert max(map(len, (title, *lines))) <= 80
    assert not any("…" in line for line in lines)
