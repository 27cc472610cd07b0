"""The page of a calibration: everything in one file, every layer on it, drawings that are well-formed, no text as markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dlv3deploy.calibration.fidelity import Fidelity
from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.layer_facts import GridUse, LayerFacts
from dlv3deploy.calibration.mixed import Point
from dlv3deploy.calibration.output_error import ErrorFacts, Ring
from dlv3deploy.calibration.report import CalibrationReport, CostlyLayer
from dlv3deploy.calibration.table import CalibrationKey, CalibrationTable, TriedMethod
from dlv3deploy.calibration.tensor_facts import TensorFacts
from dlv3deploy.measure.calibration_page import CalibrationPage, number, ratio, share
from dlv3deploy.measure.charts import LEFT, RIGHT, round_values

pytest.importorskip("jinja2")

EVIL = "<script>alert('1')</script>\" onload=\"x & y"
VOID = {"meta", "img", "link", "br"}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def error(snr_db: float, rings: int = 0) -> ErrorFacts:
    parts = tuple(Ring(i, i, 40 - i, min(9.0, 4.0 + i), snr_db + i) for i in range(rings))
    return ErrorFacts(snr_db, -0.25, 0.1, 2, 0.3, parts)


def layer(name: str, rate: int = 1, int8: bool = True) -> LayerFacts:
    rings = 8 if rate > 1 else 0
    grid, own = (GridUse(12.0, 3, 30.0, 40.0), error(31.0, rings)) if int8 else (None, None)
    return LayerFacts(name, f"{name}.input", (3, 3), (rate, rate), int8, 0.25, 0.7, 0.25, grid, own, error(22.0, rings))


def tensor(name: str) -> TensorFacts:
    return TensorFacts(
        name, -1.5, 3.0, 2.5, 2.5 / 127, 0.0002, 0.4, 33.0, 35.0, (f"{name}.twin",), 0.05, (900.0, 20.0, 0.0, 1.0)
    )


def page(prefix: str = "", **changes: object) -> CalibrationPage:
    layers = (layer(f"{prefix}stem"), layer(f"{prefix}atrous", 6), layer(f"{prefix}pool", int8=False), layer(f"{prefix}scores"))
    costly = CostlyLayer(f"{prefix}atrous", 0.7, 0.25, 3.2, 0.01, f"{prefix}cause", f"{prefix}remedy")
    report = CalibrationReport(
        "min-max",
        12,
        8,
        Fidelity(18.0, 0.98, 0.01),
        Fidelity(17.0, 0.97, 0.02),
        layers,
        tuple(tensor(each.input) for each in layers),
        (costly,),
        Fidelity(21.0, 0.99, 0.01),
        (f"{prefix}advice",),
    )
    key = CalibrationKey("a" * 64, "b" * 64, 12, (64, 96), f"{prefix}RGB", "auto")
    trials = (
        TriedMethod(f"{prefix}mse", Fidelity(18.0, 0.98, 0.01), 1.5),
        TriedMethod("entropy", Fidelity(-2.0, 0.5, 0.75), 0.5),
    )
    kept = (f"{prefix}pool",)
    table = CalibrationTable(
        key, {"x": Range(0, 1)}, kept, f"{prefix}mse", Fidelity(18.0, 0.98, 0.01), "c" * 64, trials, (Point(1, 0.9, 0.01),)
    )
    return replace(CalibrationPage(f"{prefix}model.onnx", table, report), **changes)


class Reader(HTMLParser):
    """Elements with their attributes, texts with the element that they stand in, and whether all that opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))
            if "td" in self.open or "th" in self.open:
                self.rows[-1][-1] += data.strip()


def written(page: CalibrationPage, folder: Path) -> tuple[str, Reader]:
    page.write(folder / "calibration.html")
    assert [path.name for path in folder.iterdir()] == ["calibration.html"]
    text = (folder / "calibration.html").read_text(encoding="utf-8")
    reader = Reader(text)
    assert reader.open == []
    return text, reader


def test_every_layer_and_every_tensor_is_on_the_page(tmp_path: Path) -> None:
    _, reader = written(page(), tmp_path)
    rows = {row[1]: row for row in reader.rows if row[0].isdigit() and len(row) == 16}
    assert list(rows) == ["stem", "atrous", "pool", "scores"]
    assert rows["atrous"][2:8] == ["3×3, rate 6", "INT8", "25.0%", "25.0%", "31.0 dB", "22.0 dB"]
    assert rows["atrous"][8:13] == ["−1.5 … 3", "2.5", "0.0197", "0.02%", "12"]
    assert rows["atrous"][13:] == ["−0.25", "0.1", "70.0%"]
    assert rows["pool"][3:13] == ["float", "25.0%", "–", "–", "22.0 dB", "–", "–", "–", "–", "–"]
    captions = [text for place, text in reader.texts if place == "b"]
    assert {f"{name}.input" for name in rows} <= set(captions)


def test_verdict_figures_trials_and_advice_are_told(tmp_path: Path) -> None:
    _, reader = written(page(), tmp_path)
    words = [text for _, text in reader.texts]
    assert {"18.0 dB", "98.0%", "75.0%", "1 of 4", "Advice."} <= set(words)
    assert ["mse", "0.01", "18.0 dB", "98.00%", "1.5 s"] in reader.rows
    assert ["entropy", "0.75", "−2.0 dB", "50.00%", "0.5 s"] in reader.rows
    assert ["atrous", "70.0%", "25.0%", "+3.2 dB", "Cause.Remedy."] in reader.rows
    assert ["1", "90.0%", "0.0100"] in reader.rows


@pytest.mark.parametrize(("agreement", "word"), [(1.0, "good"), (0.98, "fair"), (0.95, "poor"), (0.2, "bad"), (0.0, "bad")])
def test_the_verdict_follows_the_agreement(agreement: float, word: str) -> None:
    whole = page()
    table = replace(whole.table, fidelity=Fidelity(1.0, agreement, 0.01), trials=())
    assert replace(whole, table=table).verdict[0] == word


def test_the_verdict_is_by_images_that_the_method_had_not_seen_where_there_are_some() -> None:
    whole = page()
    trial = replace(whole.table.trials[0], fidelity=Fidelity(1.0, 0.2, 0.5))
    table = replace(whole.table, fidelity=Fidelity(30.0, 1.0, 0.0), trials=(trial,), mixtures=())
    assert replace(whole, table=table).verdict[0] == "bad"
    few = replace(whole, table=replace(table, key=replace(table.key, images=2))).verdict
    assert few[0] == "poor" and "too few to tell" in few[1]
    kind, text = replace(whole, table=replace(table, mixtures=whole.table.mixtures)).verdict  # of another model then
    assert kind == "good" and text.endswith("images that it was calibrated on; `evaluate` tells what it is on others.")


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    text, reader = written(page(EVIL), tmp_path)
    assert "script" not in {tag for tag, _ in reader.elements}
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert EVIL not in text
    assert {"title", "h1", "td", "p", "b", "li"} <= {place for place, found in reader.texts if EVIL in found}


def test_drawings_are_well_formed_and_inside_their_frames(tmp_path: Path) -> None:
    text, _ = written(page(EVIL), tmp_path)
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 2 + 1 + 4  # along the network, one atrous layer, four tensors
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for path in root.iter("path"):
            commands = path.attrib["d"]
            assert re.fullmatch(r"[MLVHZv\d. -]+", commands), commands
            for letter, values in re.findall(r"([MLHV])([^MLHVZv]*)", commands):
                for i, value in enumerate(map(float, NUMBER.findall(values))):
                    limit = height if letter == "V" or (letter in "ML" and i % 2) else width
                    assert 0 <= value <= limit


def test_the_border_chart_shows_every_ring_and_both_errors(tmp_path: Path) -> None:
    text, _ = written(page(), tmp_path)
    drawing = next(d for d in re.findall(r"<svg.*?</svg>", text, re.DOTALL) if "distance from the border" in d)
    root = ElementTree.fromstring(drawing)
    lines = {path.attrib["class"]: path.attrib["d"] for path in root.iter("path")}
    for kind in ("line alone", "line accumulated"):
        places = np.array([float(value) for value in NUMBER.findall(lines[kind])]).reshape(-1, 2)
        assert len(places) == 8
        assert (np.diff(places[:, 0]) > 0).all()
        assert (np.diff(places[:, 1]) < 0).all(), "the error falls towards the middle, the line rises"


def test_the_threshold_stands_where_the_axis_says(tmp_path: Path) -> None:
    text, _ = written(page(), tmp_path)
    drawing = next(d for d in re.findall(r"<svg.*?</svg>", text, re.DOTALL) if "magnitudes of stem.input" in d)
    root = ElementTree.fromstring(drawing)
    mark = next(path for path in root.iter("path") if path.attrib["class"] == "mark")
    _, _, width, _ = map(float, root.attrib["viewBox"].split())
    assert float(NUMBER.findall(mark.attrib["d"])[0]) == pytest.approx(LEFT + (width - LEFT - RIGHT) / 1.02, abs=0.1)


def test_the_page_asks_the_network_for_nothing_and_runs_nothing(tmp_path: Path) -> None:
    text, reader = written(page(), tmp_path)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    for tag, attributes in reader.elements:
        assert tag not in {"link", "iframe", "object", "script", "img"}
        assert not {"src", "href"} & set(attributes)


def test_numbers_stand_on_the_right(tmp_path: Path) -> None:
    text, _ = written(page(), tmp_path)
    assert re.search(r"th, td \{[^}]*text-align: right", text)
    assert "tabular-nums" in text


def test_a_report_without_costly_atrous_or_tried_things_is_still_a_page(tmp_path: Path) -> None:
    whole = page()
    bare = replace(whole.report, costly=(), advice=(), tensors=(), layers=(layer("only"),))
    _, reader = written(replace(whole, report=bare, table=replace(whole.table, trials=(), mixtures=())), tmp_path)
    headings = [text for place, text in reader.texts if place == "h2"]
    assert headings == ["Where the error comes from", "All layers", "Histograms of all tensors"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0%"), (1, "100%"), (0.00001, "<0.01%"), (0.9999, ">99.9%"), (0.123456, "12.3%"), (0.0123, "1.23%")],
)
def test_shares_tell_little_from_nothing(value: float, text: str) -> None:
    assert share(value) == text


def test_numbers_have_three_digits_and_a_true_minus() -> None:
    assert [number(value) for value in (0, 1234.5, -0.012345, 2e7)] == ["0", "1234", "−0.0123", "2e+07"]
    assert [ratio(value) for value in (-0.01, -3.21)] == ["0.0 dB", "−3.2 dB"]


def test_ticks_are_round_and_inside() -> None:
    assert round_values(0, 1, 4) == [0, 0.5, 1]
    assert round_values(-3, 17, 4) == [0, 5, 10, 15]
    assert round_values(2, 2, 4) == [2]
