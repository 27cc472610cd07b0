"""The text of the quantisation table, and the script from its options to its page."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest
import quantization
import quantization_makers
import quantization_rows
from machine import Machine
from measured import Limits
from quantization_memory import MemoryRow
from quantization_page import Facts, document
from quantization_rows import Compiled, Row, Structure, Why
from quantization_scores import MaskScores
from tiny_models import write_tiny

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

STAND_IN = Path(__file__).parent / "stand_in_for_calibrate.py"
FLOATS = MaskScores(0.62984, 0.45561, {"Sky": 0.92, "Pole": 0.25, "Void": None}, 1.0, 101)
WORSE = MaskScores(0.62931, 0.45, {"Sky": 0.92, "Pole": 0.2, "Void": None}, 0.98765, 101, "", [0.0001, 0.00058])
BETTER = MaskScores(0.64, 0.46, {"Sky": 0.93, "Pole": 0.26, "Void": None}, 0.99, 101, "", [0.001, 0.00525])
FLOAT_ROW = Row("camvid", "FP32", FLOATS)


def facts(command: str = "python benchmarks/quantization.py", cases: tuple[str, ...] = ()) -> Facts:
    machine = Machine("Some CPU @ 2 GHz", 2, None, "2.6.0", "3.12.1", "0.1.0")
    return Facts(
        machine, ("onnxruntime 1.32.0", "openvino not installed"), date(2026, 1, 31), command, Limits(7200, 9000), cases
    )


def table_of(text: str, heading: str = "# INT8 methods") -> list[list[str]]:
    """The first table below the heading."""
    lines = text[text.index(heading) :].splitlines()
    table = takewhile(lambda line: line.startswith("|"), dropwhile(lambda line: not line.startswith("| "), lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith("| ")]


def test_a_row_has_points_lost_the_worst_class_and_what_it_cost() -> None:
    row = Row("camvid", "dlv3deploy auto", WORSE, 12.34, 801, 0.9876, None, Compiled(58, 59, 10**8), 0.995)
    header, floats, cells = table_of(document([FLOAT_ROW, row], [], facts()))
    assert floats == ["camvid", "FP32", "0.6298", "–", "–", "0.4556", *["–"] * 6]
    assert dict(zip(header, cells, strict=True)) == {
        **{"model": "camvid", "method": "dlv3deploy auto", "mIoU": "0.6293", "drop": "0.05 ± 0.03", "worst class": "Pole 5.00"},
        **{"boundary mIoU": "0.4500", "as FP32": "98.77 %", "seconds": "12.3", "MB": "801", "INT8 MACs": "98.76 %"},
        **{"TensorRT-RTX": "yes", "OpenVINO": "99.50 %"},
    }


def test_where_pairs_stand_is_a_table_in_which_methods_that_place_alike_share_a_line() -> None:
    ours, theirs = Structure(57, 58, 56, 2), Structure(110, 58, 58, 57)
    plan, refused = Compiled(58, 59, 366_950_088), Why("no", "a bias")
    rows = [
        replace(FLOAT_ROW, tensorrt=Compiled(58, 5, 242_238_408)),
        Row("camvid", "a", WORSE, 1.0, 1, 1.0, theirs, refused),
        Row("camvid", "b", WORSE, 1.0, 1, 1.0, ours, plan),
        Row("camvid", "c", WORSE, 1.0, 1, 1.0, ours, plan),
        Row("camvid", "d", Why("failed")),
        Row("voc", "b", WORSE, 1.0, 1, 1.0, ours, plan),
    ]
    text = document(rows, [], facts())
    assert table_of(text, "## Placement")[1:] == [
        ["camvid", "FP32", "–", "–", "–", "–", "58 + 5", "242.2"],
        ["camvid", "a", "110", "58", "58", "57", "no", "–"],
        ["camvid", "b and 1 more", "57", "58", "56", "2", "58 + 59", "367.0"],
        ["voc", "b", "57", "58", "56", "2", "58 + 59", "367.0"],
    ]


def test_a_gain_is_a_negative_drop() -> None:
    cells = table_of(document([FLOAT_ROW, Row("camvid", "other", BETTER, 1.0, 1)], [], facts()))[2]
    assert cells[3:5] == ["−1.02 ± 0.30", "Sky −1.00"]


def test_a_row_whose_masks_are_anothers_in_every_pixel_says_so() -> None:
    scores = {letter: replace(WORSE, masks_sha256=letter) for letter in "ab"}
    titles = {"min-max": "a", "mse": "b", "entropy": "a"}
    rows = [FLOAT_ROW, *(Row("camvid", title, scores[letter], 1.0, 1) for title, letter in titles.items())]
    rows += [Row("voc", "entropy", scores["a"], 1.0, 1)]
    text = document(rows, [], facts())
    assert [cells[1] for cells in table_of(text)[1:]] == ["FP32", "min-max", "mse", "entropy (1)", "entropy"]
    assert "\n(1) its masks are those of min-max in every pixel\n" in text


def test_every_model_is_compared_with_its_own_float_row() -> None:
    rows = [FLOAT_ROW, Row("camvid", "a", WORSE, 1.0, 1), Row("voc", "FP32", BETTER), Row("voc", "a", WORSE, 1.0, 1)]
    assert [cells[3] for cells in table_of(document(rows, [], facts()))[1:]] == ["–", "0.05 ± 0.03", "–", "1.07 ± 0.03"]


def test_auto_stands_beside_the_best_of_the_others_and_what_may_be_chance() -> None:
    better = replace(WORSE, miou=0.6295, drops=[0.0002, 0.00048])
    rows = [
        FLOAT_ROW,
        Row("camvid", "ONNX Runtime min-max", WORSE, 1.0, 1),
        Row("camvid", "ModelOpt max", better, 1.0, 1),
        Row("camvid", "dlv3deploy min-max", BETTER, 1.0, 1),
        Row("camvid", "dlv3deploy auto", BETTER, 1.0, 1),
        Row("voc", "dlv3deploy auto", BETTER, 1.0, 1),
    ]
    text = document(rows, [], facts())
    assert table_of(text, "## Beside")[1:] == [
        ["camvid", "−1.02 ± 0.30", "ModelOpt max", "0.03 ± 0.02", "−1.05 ± 0.28"],
    ]
    assert "## Beside" not in document(rows[:3], [], facts())


def test_reasons_stand_below_the_table_once_short_and_without_paths(tmp_path: Path) -> None:
    refused = Why("no", f"node /bb/f/Conv: refused in {tmp_path}/compiler.cpp")
    rows = [
        FLOAT_ROW,
        Row("camvid", "a", WORSE, 1.0, 1, tensorrt=refused),
        Row("camvid", "b", WORSE, 1.0, 1, tensorrt=refused),
        Row("camvid", "c", Why("out of memory", "stopped after 12 s with 9001 MB")),
        Row("camvid", "d", Why("failed", "because " * 100)),
        Row("camvid", "e", Why("not installed")),
    ]
    text = document(rows, [], facts())
    cells = table_of(text)[2:]
    assert [row[10] for row in cells[:2]] == ["no (1)", "no (1)"]
    assert [row[2] for row in cells[2:]] == ["out of memory (2)", "failed (3)", "not installed"]
    assert "\n(1) node /bb/f/Conv: refused in compiler.cpp\n" in text
    assert "\n(2) stopped after 12 s with 9001 MB\n" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("(3)")) < 320


def test_the_head_says_machine_versions_date_command_and_images_and_no_path(tmp_path: Path) -> None:
    command = f"python benchmarks/quantization.py --workspace {tmp_path}/space"
    text = document([FLOAT_ROW], [], facts(command, ("camvid: 360×480; judged on 101 images",)))
    for line in (
        "- CPU: Some CPU @ 2 GHz, 2 cores",
        "- onnxruntime 1.32.0, openvino not installed",
        "- date: 2026-01-31",
        "- command: `python benchmarks/quantization.py --workspace space`",
        "- limits of one calibration: 7200 s, 9000 MB",
        "- camvid: 360×480; judged on 101 images",
    ):
        assert f"\n{line}\n" in text
    assert str(tmp_path) not in text
    assert "Memory of a calibration" not in text


def test_figures_of_other_days_have_their_days() -> None:
    rows = [FLOAT_ROW, *(Row("camvid", day, WORSE, 1.0, 1, day=day) for day in ("2026-01-31", "2026-01-29"))]
    assert "\n- date: 2026-01-31; measured from 2026-01-29 to 2026-01-31\n" in document(rows, [], facts())


def test_memory_has_a_table_of_its_own() -> None:
    about = "voc at 513×513"
    memory = [
        MemoryRow("dlv3deploy entropy", 100, 61.25, 500, "done", "", about),
        MemoryRow("dlv3deploy entropy", 200, 1.0, 40, "failed", "No such command 'calibrate'.", about),
        MemoryRow("ONNX Runtime entropy", 100, 20.0, 9001, "out of memory", "", about),
    ]
    text = document([FLOAT_ROW], memory, facts())
    assert table_of(text, "## Memory")[1:] == [
        ["dlv3deploy entropy", "100", "61.2", "500"],
        ["dlv3deploy entropy", "200", "failed: No such command 'calibrate'.", "40"],
        ["ONNX Runtime entropy", "100", "out of memory", "9001"],
    ]
    assert "\nvoc at 513×513; seconds" in text


@pytest.fixture
def arguments(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """For a tiny model that describes itself; our command is played, and TensorRT-RTX not there."""
    monkeypatch.setattr(quantization_makers, "PROGRAM", (sys.executable, str(STAND_IN)))
    monkeypatch.setattr(quantization_rows, "installed", lambda _package: None)
    model = write_tiny(tmp_path / "tiny.onnx")
    given = ["--workspace", str(tmp_path / "space"), "--model", f"tiny={model}", "--data", str(scenes)]
    return [*given, "--calibration-images", str(scenes / "train" / "images"), "--images", "3", "--every", "3"]


def run(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["quantization.py", *arguments])
    return quantization.main()


def test_the_script_writes_its_page_into_the_workspace_when_it_measured_a_part(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, [*arguments, "--methods", "ours:min-max,ours:fails"]) == 1
    text = (tmp_path / "space" / "quantization.md").read_text(encoding="utf-8")
    rows = table_of(text)[1:]
    assert [row[:2] for row in rows] == [["tiny", name] for name in ("FP32", "dlv3deploy min-max", "dlv3deploy fails")]
    assert rows[2][2] == "failed (1)"
    assert "(1) error: model.onnx: cannot be calibrated" in text
    assert str(tmp_path) not in text
    assert run(monkeypatch, [*arguments, "--methods", "ours:min-max"]) == 0


def test_ctrl_c_keeps_the_rows_that_are_there(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = quantization_rows.made

    def interrupted(case: object, method: object, *others: object) -> object:
        if "mse" in str(case):
            raise KeyboardInterrupt
        return made(case, method, *others)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(quantization_rows, "made", interrupted)
    assert run(monkeypatch, [*arguments, "--methods", "ours:min-max,ours:mse,ours:auto"]) == 130
    assert "go on with the same command" in capsys.readouterr().err
    rows = table_of((tmp_path / "space" / "quantization.md").read_text(encoding="utf-8"))
    assert [row[1] for row in rows[1:]] == ["FP32", "dlv3deploy min-max"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--methods", "best"], "method 'best': is unknown"),
        (["--memory"], "give --shared DIR"),
        (["--every", "0"], "count from 1"),
        (["--size", "tall"], "size 'tall'"),
        (["--model", "voc"], "is no built-in model"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    arguments: list[str], options: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, [*arguments, *options]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
