"""The one grammar in which every source of frames is named: `--source` and `--camera` both end here."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import IMAGE_SUFFIXES, list_images

SourceKind = Literal["camera", "file", "folder", "image", "glob", "stream"]

WORKS = (
    "give a camera number (0), a video file, a picture, a folder of pictures, a pattern ('shots/*.png'), "
    "rtsp://…, http://… or file://…"
)
STREAM_SCHEMES = ("rtsp", "http", "https")
CAMERA = re.compile(r"(?:camera[ :]*|/dev/video)?(\d{1,4})", re.IGNORECASE)
SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


@dataclass(frozen=True)
class SourceAddress:
    """Where frames come from.

    `text` is for people: what was given, without a password. `device` belongs to cameras, `url` to streams, `paths` (one, or
    the sorted pictures of a folder or pattern) to everything on disk.
    """

    kind: SourceKind
    text: str
    device: int = 0
    url: str = ""
    paths: tuple[Path, ...] = ()


def parse_source(text: str) -> SourceAddress:
    """The address that `text` names.

    Raises UserError for a path that does not exist, a folder without pictures, a pattern that matches none and a scheme that
    is not served. Nothing is opened: whether the camera, server or file delivers is `open_source`'s to find out.
    """
    text = text.strip()
    if not text:
        raise UserError("an empty source", "names nothing", WORKS)
    if camera := CAMERA.fullmatch(text):
        return SourceAddress("camera", f"camera {int(camera[1])}", device=int(camera[1]))
    if scheme := SCHEME.match(text):
        return _from_uri(text, scheme[1].lower())
    return _from_path(text, Path(text).expanduser())


def _from_uri(text: str, scheme: str) -> SourceAddress:
    if scheme == "file":
        return _from_path(text, Path(unquote(text[len("file://") :].removeprefix("localhost"))))
    if scheme not in STREAM_SCHEMES:
        raise UserError(text, f"the scheme {scheme}:// is not served", WORKS)
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host:
        raise UserError(text, "names no server", f"write it as {scheme}://HOST/PATH")
    return SourceAddress("stream", without_password(text), url=text)


def _from_path(text: str, path: Path) -> SourceAddress:
    if path.is_dir():
        return SourceAddress("folder", text, paths=_pictures_of(text, path))
    if path.is_file():
        kind: SourceKind = "image" if path.suffix.lower() in IMAGE_SUFFIXES else "file"
        return SourceAddress(kind, text, paths=(path,))
    if path.exists():
        raise UserError(text, "is neither a file nor a folder", WORKS)
    if glob.has_magic(str(path)):
        return SourceAddress("glob", text, paths=_pictures_matching(text, str(path)))
    raise UserError(text, "does not exist", WORKS)


def _pictures_of(text: str, folder: Path) -> tuple[Path, ...]:
    try:
        pictures = tuple(list_images(folder))
    except OSError as error:
        raise UserError(text, f"cannot be read ({error.strerror})", "choose a folder that can be read") from error
    if not pictures:
        inner = next((p for p in sorted(folder.iterdir()) if p.is_dir() and list_images(p)), None)
        remedy = f"did you mean {inner}?" if inner else f"pictures are {', '.join(sorted(IMAGE_SUFFIXES))}"
        raise UserError(text, "is a folder without pictures", remedy)
    return pictures


def _pictures_matching(text: str, pattern: str) -> tuple[Path, ...]:
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (may be absolute)
    pictures = tuple(p for p in matches if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)
    if not pictures:
        rule = f"matches {len(matches)} files, none of them a picture" if matches else "matches no file"
        raise UserError(text, rule, f"pictures are {', '.join(sorted(IMAGE_SUFFIXES))}; a video is given by its own path")
    return pictures


def without_password(url: str) -> str:
    """`url` with a password in it shown as `***`, for messages."""
    return re.sub(r"(//[^/@:]*):[^/]*@", r"\1:***@", url, count=1)
