"""An HTML page of one file: a table of models, pictures and a curve, readable without a network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.files import write_text
from dlv3deploy.core.images import Frame
from dlv3deploy.measure.evaluate import Comparison

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Picture:
    """A picture with a line under it; `data` is a PNG or JPEG file's bytes."""

    caption: str
    data: bytes
    kind: str = "jpeg"

    @property
    def uri(self) -> str:
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"

    @classmethod
    def of(cls, caption: str, frame: Frame) -> Picture:
        """From H×W×3 BGR pixels."""
        import cv2

        return cls(caption, cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())


@dataclass(frozen=True)
class Row:
    """Pictures that belong together: what the camera saw, the truth, and each model's mask."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Page:
    title: str
    summary: Sequence[str]
    comparisons: Sequence[Comparison]
    classes: Classes
    rows: Sequence[Row]
    curve: Picture | None = None

    def write(self, path: Path) -> None:
        """Write the page; texts are escaped, pictures are inside."""
        from jinja2 import Environment

        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.filters["share"] = lambda value: "–" if value is None else f"{value:.3f}"
        write_text(path, environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(page=self))
