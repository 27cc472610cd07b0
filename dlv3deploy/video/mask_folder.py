"""A folder of masks: one indexed PNG a frame, its values class ids, its colours the classes'."""

from __future__ import annotations

from pathlib import Path

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.files import write_error
from dlv3deploy.core.images import write_mask
from dlv3deploy.video.sink import Segmented, Sink


class MaskFolder(Sink):
    """Writes `folder/<name of the frame>.png`. Raises UserError when the folder cannot be made."""

    def __init__(self, folder: Path, classes: Classes) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error
        self._folder, self._classes = folder, classes

    def write(self, result: Segmented) -> None:
        write_mask(self._folder / f"{result.frame.name}.png", result.mask, self._classes)

    def close(self) -> None:
        """Every write is complete in itself."""
