"""Folders of results, one file a frame: masks as indexed PNG files, or pictures with the classes drawn over them."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import write_error
from dlv3deploy.core.images import picture_made_by, write_mask, write_picture
from dlv3deploy.video.sink import Segmented, Sink

MADE_BY = "dlv3deploy run"


class ResultFolder(Sink):
    """Writes `folder/<name of the frame><suffix>`. Raises UserError when the folder cannot be made.

    What an earlier run wrote is replaced by the same kind of result; any other file, such as a data set's label, is not:
    UserError.
    """

    made_by: str

    def __init__(self, folder: Path, suffix: str) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error
        self._folder, self._suffix = folder, suffix

    def write(self, result: Segmented) -> None:
        path = self._folder / f"{result.frame.name}{self._suffix}"
        if path.exists() and picture_made_by(path) != self.made_by:
            raise UserError(
                str(path), "was not written so by a run, and would be lost", "give the results a folder of their own"
            )
        self._save(path, result)

    @abstractmethod
    def _save(self, path: Path, result: Segmented) -> None: ...

    def close(self) -> None:
        """Every write is complete in itself."""


class MaskFolder(ResultFolder):
    """Indexed PNG files: their values are class ids, their colours the classes'."""

    made_by = MADE_BY

    def __init__(self, folder: Path, classes: Classes) -> None:
        super().__init__(folder, ".png")
        self._classes = classes

    def _save(self, path: Path, result: Segmented) -> None:
        write_mask(path, result.mask, self._classes, self.made_by)


class OverlayFolder(ResultFolder):
    """Pictures for people, as `.jpg` or `.png`."""

    wants_overlay = True
    made_by = f"{MADE_BY}, overlay"

    def _save(self, path: Path, result: Segmented) -> None:
        write_picture(path, result.shown(), self.made_by)
