"""Reading and writing artefacts: hashes, and writes that either happen whole or not at all."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.similar import did_you_mean

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TOKEN_BYTES = 4  # of what is random in a temporary's name
ABANDONED_S = 24 * 3600.0  # nobody writes to a temporary that has not changed for so long
PROBE_BYTES = 1 << 20  # a disk that refused a write has less left than this


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

    The old file stays whole until the new one is safely on the disk (fsync, then rename), which keeps its permissions. Where
    `path` is a link, the file that it points to is replaced. A disk that fills, a folder that cannot be written, or a `path`
    that is no plain file raises UserError and leaves everything as it was. The temporary keeps `path`'s suffix, because video
    writers choose the container by it.
    """
    made: Path | None = None
    try:
        target = check_target(path)
        sweep(target, ABANDONED_S)
        fresh = target.with_name(f".{target.stem}.{secrets.token_hex(TOKEN_BYTES)}.partial{target.suffix}")
        fresh.touch(exist_ok=False)  # unlike tempfile's, its permissions follow the umask
        made, permissions = fresh, stat.S_IMODE(fresh.stat().st_mode)
        yield made
        made.chmod(permissions)  # safetensors puts a file of its own there, for its owner alone
        put_in_place(made, target)
    except OSError as error:
        raise write_error(path, error) from error
    except Exception as error:
        if made is not None and (refusal := _write_refusal(made)) is not None:
            raise write_error(path, refusal) from error
        raise
    finally:
        if made is not None:
            with suppress(FileNotFoundError):
                made.unlink()


def check_target(path: Path) -> Path:
    """Where a file that replaces `path` goes: behind links, in a folder that is made when it is not there.

    Raises UserError when `path` is no plain file, or when its folder cannot be made.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            rule = "is a folder, a file is needed" if target.is_dir() else "is no plain file, and cannot be replaced by one"
            raise UserError(str(path), rule, "choose another name")
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    return target


def put_in_place(made: Path, path: Path) -> None:
    """Let the finished file `made` take the place of `path`, beside which it lies. After an OSError it is where it was."""
    target = check_target(path)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    if target.exists():
        made.chmod(stat.S_IMODE(target.stat().st_mode))
    made.replace(target)


def sweep(target: Path, idle_s: float = 0.0) -> None:
    """Remove what writers of `target` that were killed have left beside it: temporaries untouched for `idle_s` seconds."""
    for left in target.parent.glob(f".{glob.escape(target.stem)}.{'?' * 2 * TOKEN_BYTES}.partial{glob.escape(target.suffix)}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime >= idle_s:
                left.unlink()


def _write_refusal(path: Path) -> OSError | None:
    """Why the system lets no more be written to `path`: safetensors and torch hide a full disk in exceptions of their own."""
    try:
        with path.open("ab") as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        return error
    return None


def write_error(path: Path, error: OSError) -> UserError:
    """The UserError for an `OSError` met while `path` was written."""
    exists = os.path.exists  # Path.exists raises where a name is too long or a folder is closed
    kept = "the file that was there is unchanged" if exists(path) else "nothing was written"
    if error.errno in NO_SPACE:
        folder = next(p for p in (path.parent, *path.parent.parents) if exists(p))
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
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(str(path), f"is not readable JSON ({error})", "make it again") from error


def is_object_with(path: Path, *keys: str) -> bool:
    """Whether a file is JSON, an object, and has these keys."""
    try:
        data = read_json(path)
    except UserError:
        return False
    return isinstance(data, dict) and {*keys} <= set(data)


def require_file(path: Path, made_by: str) -> Path:
    """`path`, when it is a file with something in it; otherwise UserError that names the command which makes one."""
    if path.is_dir():
        raise UserError(str(path), "is a folder, a file is needed", made_by)
    if not path.is_file():
        beside = [other.name for other in path.parent.glob(f"*{glob.escape(path.suffix)}")] if path.parent.is_dir() else []
        meant = did_you_mean(path.name, beside)
        raise UserError(str(path), "does not exist", f"{meant} Or {made_by}" if meant else made_by)
    if path.stat().st_size == 0:
        raise UserError(str(path), "is empty", made_by)
    return path
