"""What a layout is: how a published data set lies in its folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.datasets.sample import Sample

Split = Literal["train", "val", "trainval", "test"]


class Selection(NamedTuple):
    """The samples of one split, and what that set of images is called."""

    samples: list[Sample]
    name: str


@dataclass(frozen=True)
class Layout:
    """`find` gives the folder that the layout begins at, for a folder given by the user, or None where it is another layout.

    `select` serves the splits in `splits` (`trainval` is otherwise `train` and `val` together), for the layout's own `classes`,
    for as many under other names, or for one of `also`.
    """

    name: str
    find: Callable[[Path], Path | None]
    classes: Callable[[Path], Classes]
    select: Callable[[Path, Split, Classes], Selection]
    splits: tuple[Split, ...] = ("train", "val")
    also: tuple[Classes, ...] = ()


def first_with(candidates: tuple[Path, ...], *folders: str) -> Path | None:
    """The first candidate that holds all of `folders`."""
    return next((c for c in candidates if all((c / name).is_dir() for name in folders)), None)
