"""Where things are kept that can be had again: downloads and engines."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "DLV3DEPLOY_CACHE"  # the folder instead of ~/.cache/dlv3deploy


def cache_folder() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/dlv3deploy").expanduser()
