"""Where a calibration's results may go: nothing that is worth keeping lies there, and no two of them meet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dlv3deploy.core.errors import UserError


def check_targets(source: Path, targets: Sequence[Path]) -> None:
    """Raises UserError when one of `targets` is the model that is read, a folder, or another one of them."""
    taken = {_place(source): "the model to calibrate lies there"}
    for path in targets:
        place = _place(path)
        if place.is_dir():
            raise UserError(str(path), "is a folder, a file is needed", "choose another name")
        if place in taken:
            raise UserError(str(path), taken[place], "choose another name: --to, --table")
        taken[place] = "two results would have this name"


def _place(path: Path) -> Path:
    return Path(os.path.realpath(path))
