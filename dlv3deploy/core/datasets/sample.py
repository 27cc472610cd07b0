"""One labelled image: where its two files lie, and how the label file is turned into class ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dlv3deploy.core.datasets.codings import ClassIds
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Frame, Mask, read_frame


class Coding(Protocol):
    """How a label file holds class ids; frozen and hashable, so that samples can be told apart and sent to other processes."""

    def read(self, path: Path) -> Mask:
        """Class ids, H×W uint8. Raises UserError naming `path`."""
        ...


@dataclass(frozen=True)
class Sample:
    image: Path
    label: Path
    coding: Coding = field(default=ClassIds(), repr=False)

    def read(self) -> tuple[Frame, Mask]:
        """The frame and its label, which may differ in size and be squashed, but not turned."""
        frame, label = read_frame(self.image), self.coding.read(self.label)
        (height, width), (label_height, label_width) = frame.shape[:2], label.shape
        if (width - height) * (label_width - label_height) < 0:
            raise UserError(
                f"{self.image} is {width}×{height}, {self.label} is {label_width}×{label_height}",
                "one lies across and the other upright, so they cannot show one view",
                "turn one of them as the other is",
            )
        return frame, label


def require_files(samples: Iterable[Sample]) -> None:
    """Raise UserError naming the first image or label that is not there; folders are listed once, not asked file by file."""
    listings: dict[Path, frozenset[str]] = {}

    def is_there(path: Path) -> bool:
        folder = path.parent
        if folder not in listings:
            listings[folder] = frozenset(entry.name for entry in folder.iterdir()) if folder.is_dir() else frozenset()
        return path.name in listings[folder]

    for sample in samples:
        if not is_there(sample.image):
            raise UserError(str(sample.image), f"does not exist, though {sample.label.name} labels it", "supply the picture")
        if not is_there(sample.label):
            raise UserError(str(sample.label), f"does not exist, the label of {sample.image.name}", "supply the label")


def read_names(path: Path) -> list[str]:
    """The names that a list file holds, one a line: of each line the first word, without folder and suffix.

    So `2007_000032` and `/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png` name the same image. Raises
    UserError when the file is missing, no text, or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        rule = "does not exist" if isinstance(error, FileNotFoundError) else f"is not a readable list ({error})"
        raise UserError(str(path), rule, "it holds one image name a line; unpack the data set again") from error
    names = [Path(line.split()[0]).stem for line in lines if line.strip()]
    if not names:
        raise UserError(str(path), "names no image", "it holds one image name a line; unpack the data set again")
    return list(dict.fromkeys(names))
