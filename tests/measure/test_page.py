"""The HTML report: one file, readable without a network, in which no text becomes markup."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dlv3deploy.core.classes import Classes, palette_for
from dlv3deploy.core.metrics import SegmentationScores
from dlv3deploy.measure.evaluate import Comparison
from dlv3deploy.measure.page import Page, Picture, Row

pytest.importorskip("jinja2")

EVIL = "<script>alert('1')</script>\" onload=\"x & y"
VOID = {"meta", "img", "link", "br"}


class Reader(HTMLParser):
    """Elements with their attributes, the text of each, and whether everything that opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))


def scores(miou: float, names: tuple[str, ...], first: float | None = 0.25) -> SegmentationScores:
    return SegmentationScores(miou, 0.9, {name: first if i == 0 else 0.75 for i, name in enumerate(names)}, 3)


def page(name: str = "road") -> Page:
    classes = Classes((name, "sky"), palette_for(2))
    picture = Picture.of(name, np.full((4, 6, 3), 9, np.uint8))
    return Page(
        title=name,
        summary=[name],
        comparisons=[
            Comparison(name, scores(0.5, classes.names), 20.0, 8.0),
            Comparison("INT8", scores(0.4, classes.names, first=None), 10.0, 2.0),
        ],
        classes=classes,
        rows=[Row(name, [picture, picture])],
        curve=Picture(name, b"a curve", "png"),
    )


def written(page: Page, folder: Path) -> Reader:
    page.write(folder / "report.html")
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    reader = Reader((folder / "report.html").read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    reader = written(page(EVIL), tmp_path)
    assert "script" not in {tag for tag, _ in reader.elements}
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    shown = [place for place, text in reader.texts if text == EVIL]
    assert set(shown) == {"title", "h1", "li", "td", "th", "p", "figcaption"}
    captions = [attributes["alt"] for tag, attributes in reader.elements if tag == "img"]
    assert captions == [EVIL] * 3


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    reader = written(page(), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("data:image/", ""))
    for tag, attributes in reader.elements:
        assert tag not in {"link", "iframe", "object"}
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")  # type: ignore[union-attr]  # none of them is bare


def test_pictures_are_inside(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    reader = written(page(), tmp_path)
    sources = [str(attributes["src"]) for tag, attributes in reader.elements if tag == "img"]
    assert sources[2] == "data:image/png;base64," + base64.b64encode(b"a curve").decode()
    data = base64.b64decode(sources[0].removeprefix("data:image/jpeg;base64,"))
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(frame.astype(int) - 9).max() <= 2


def test_numbers_and_the_best_of_them(tmp_path: Path) -> None:
    reader = written(page(), tmp_path)
    cells = [text for place, text in reader.texts if place == "td"]
    assert cells[:10] == ["road", "0.5000", "0.9000", "20.0 ms", "8.0 MB", "INT8", "0.4000", "0.9000", "10.0 ms", "2.0 MB"]
    assert cells[10:] == ["road", "0.250", "–", "sky", "0.750", "0.750"]
    best = [i for i, (tag, a) in enumerate(e for e in reader.elements if e[0] == "td") if a.get("class") == "best"]
    assert best == [1, 8], "the first model's mIoU, the second one's latency"


def test_a_model_of_other_classes_has_no_figure_for_those_of_the_page(tmp_path: Path) -> None:
    own = page()
    other = Comparison("other", scores(0.3, ("tree",)), 5.0, 1.0)
    reader = written(replace(own, comparisons=[*own.comparisons, other], curve=None), tmp_path)
    cells = [text for place, text in reader.texts if place == "td"]
    assert cells[15:] == ["road", "0.250", "–", "–", "sky", "0.750", "0.750", "–"]


def test_a_report_without_pictures_and_models_is_still_a_page(tmp_path: Path) -> None:
    reader = written(Page("empty", [], [], Classes(("road",), palette_for(1)), []), tmp_path)
    assert ("h1", "empty") in reader.texts


def test_colours_of_the_legend_are_the_classes(tmp_path: Path) -> None:
    reader = written(page(), tmp_path)
    styles = [attributes["style"] for tag, attributes in reader.elements if tag == "i"]
    assert styles == [f"background: rgb{colour}" for colour in palette_for(2)]
