"""Reading and writing artefacts: hashes, and writes that either happen whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dlv3deploy.core.errors import UserError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well it takes `path`'s place, otherwise it vanishes.

    The old file stays whole until the new one is safely on the disk (fsync, then rename). A disk that fills, or a folder
    that cannot be written, raises UserError and leaves the old file as it was. The temporary keeps `path`'s suffix, because
    video writers choose the container by it.
    """
    made: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".partial{path.suffix}", dir=path.parent)
        os.close(handle)
        made = Path(name)
        yield made
        made.chmod(0o644)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if made is not None:
            with suppress(FileNotFoundError):
                made.unlink()


def write_error(path: Path, error: OSError) -> UserError:
    """The UserError for an `OSError` met while `path` was written."""
    kept = "the file that was there is unchanged" if path.exists() else "nothing was written"
    if error.errno in NO_SPACE:
        folder = next(p for p in (path.parent, *path.parent.parents) if p.exists())
        free = shutil.disk_usage(folder).free / 1e6
        return UserError(
            str(path), f"could not be written, the disk or quota is full ({free:.0f} MB free), {kept}", "free some space"
        )
    return UserError(
        str(path), f"could not be written ({error.strerror or error}), {kept}", "choose a folder that can be written"
    )


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The parsed file. Raises UserError when it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(str(path), f"is not readable JSON ({error})", "make it again") from error


def require_file(path: Path, made_by: str) -> Path:
    """`path`, when it is a file with something in it; otherwise UserError that names the command which makes one."""
    if not path.is_file():
        rule = "is a folder, a file is needed" if path.is_dir() else "does not exist"
        raise UserError(str(path), rule, made_by)
    if path.stat().st_size == 0:
        raise UserError(str(path), "is empty", made_by)
    return path
