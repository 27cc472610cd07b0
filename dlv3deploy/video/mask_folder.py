"""A folder of masks: one indexed PNG a frame, its values class ids, its colours the classes'."""

from __future__ import annotations

from pathlib import Path

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import write_error
from dlv3deploy.core.images import mask_made_by, write_mask
from dlv3deploy.video.sink import Segmented, Sink

MADE_BY = "dlv3deploy run"


class MaskFolder(Sink):
    """Writes `folder/<name of the frame>.png`. Raises UserError when the folder cannot be made.

    A mask of an earlier run is replaced; a file that no run wrote, such as a data set's label, is not: UserError.
    """

    def __init__(self, folder: Path, classes: Classes) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error
        self._folder, self._classes = folder, classes

    def write(self, result: Segmented) -> None:
        path = self._folder / f"{result.frame.name}.png"
        if path.exists() and mask_made_by(path) != MADE_BY:
            raise UserError(str(path), "was not written by a run, and would be lost", "give the masks a folder of their own")
        write_mask(path, result.mask, self._classes, MADE_BY)

    def close(self) -> None:
        """Every write is complete in itself."""
