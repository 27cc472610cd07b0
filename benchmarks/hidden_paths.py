"""Messages and commands as a page may show them: without telling where files lie on the machine."""

from __future__ import annotations

import re
from pathlib import Path

PATH = re.compile(r"(?<![\w.~/])/[^\s:,;'\"()]+")


def without_paths(text: str) -> str:
    """`text` with the last part alone of every absolute path; names of nodes that begin with a slash stay."""
    return PATH.sub(lambda found: Path(found[0]).name if _is_path(found[0]) else found[0], text)


def _is_path(text: str) -> bool:
    """Whether its first folder is there; the rest may be gone."""
    return len(Path(text).parts) > 2 and Path(*Path(text).parts[:2]).exists()
