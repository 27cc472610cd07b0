"""The one grammar in which every source of frames is named: `--source` and `--camera` both end here."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import IMAGE_SUFFIXES, folder_of_images, list_images
from dlv3deploy.video.settings import Setting, Settings, choice, number, read_settings, whole

SourceKind = Literal["camera", "csi", "drawn", "file", "folder", "glob", "gstreamer", "image", "stream"]

WORKS = (
    "give a camera number (0), a video file, a picture, a folder of pictures, a pattern ('shots/*.png'), "
    "rtsp://…, http://…, file://…, v4l2:///dev/video0?width=1280&height=720&fps=30, csi://0, gst:PIPELINE or test://0"
)
SIDE, RATE = whole(1, 16384), number(0, 1000)
FOURCC = Setting("four letters, such as MJPG", lambda text: len(text) == 4 and text.isascii())
OF_CAMERAS = {"width": SIDE, "height": SIDE, "fps": RATE, "format": FOURCC}
OF_CSI = {"width": SIDE, "height": SIDE, "fps": whole(1, 1000), "flip": whole(0, 7)}
OF_HTTP = {"reconnect": whole(0, 7 * 24 * 3600)}
OF_RTSP = {"transport": choice("tcp", "udp"), "latency": whole(0, 60_000), **OF_HTTP}
OF_DRAWN = {
    "size": Setting("HEIGHTxWIDTH", lambda text: re.fullmatch(r"\d{1,5}x\d{1,5}", text) is not None),
    "fps": number(0, 240),
    "seconds": number(0, 7200),
    "live": choice("yes", "no"),
    "code": choice("yes", "no"),
}
STREAM_SCHEMES = ("rtsp", "http", "https")
CAMERA = re.compile(r"(?:camera[ :]*|/dev/video)?(\d{1,4})", re.IGNORECASE)
V4L2 = re.compile(r"/dev/video(\d{1,4})|(\d{1,4})")
SECRET = re.compile(r"((?:[?&]|\b)(?:pass|passwd|password|pwd|token|key|apikey|secret|user-pw)=)[^&\s!]+", re.IGNORECASE)
SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


@dataclass(frozen=True)
class SourceAddress:
    """Where frames come from.

    `text` is for people: what was given, without a password. `device` is a camera's or port's number, or a drive's seed, `url`
    a stream's, or a pipeline, `paths` (one, or the sorted pictures of a folder or pattern) what is on disk; `settings` are what
    was asked for of a camera, a stream or a drive.
    """

    kind: SourceKind
    text: str
    device: int = 0
    url: str = ""
    paths: tuple[Path, ...] = ()
    settings: Settings = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Whether frames come when they come, as far as the address tells; a stream may be a file that a server holds."""
        return self.kind in ("camera", "csi", "gstreamer", "stream") or self.settings.get("live") == "yes"


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
    if text.lower().startswith("gst:"):
        return _of_gstreamer(text)
    if scheme := SCHEME.match(text):
        return _from_uri(text, scheme[1].lower())
    return _from_path(text, Path(text).expanduser())


def _from_uri(text: str, scheme: str) -> SourceAddress:
    if scheme == "file":
        return _from_path(text, Path(unquote(text[len("file://") :].removeprefix("localhost"))))
    if scheme in ("v4l2", "csi", "test"):
        return _of_a_device(text, scheme)
    if scheme not in STREAM_SCHEMES:
        raise UserError(text, f"the scheme {scheme}:// is not served", WORKS)
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host:
        raise UserError(text, "names no server", f"write it as {scheme}://HOST/PATH")
    url, _, settings = text.partition("#")  # which no server is sent
    known = OF_RTSP if scheme == "rtsp" else OF_HTTP
    return SourceAddress(
        "stream", without_password(text), url=url, settings=read_settings(without_password(text), settings, known)
    )


def _of_gstreamer(text: str) -> SourceAddress:
    pipeline = text[len("gst:") :].removeprefix("//").strip()
    if not pipeline:
        raise UserError(text, "names no pipeline", "write it as for gst-launch-1.0: gst:videotestsrc")
    return SourceAddress("gstreamer", without_password(text), url=pipeline)


def _of_a_device(text: str, scheme: str) -> SourceAddress:
    """A camera by its path or number, a CSI port, or the seed of a drawn drive, with what is asked for behind `?`."""
    place, _, query = text[len(scheme) + len("://") :].partition("?")
    if scheme == "v4l2":
        found = V4L2.fullmatch(place)
        if found is None:
            raise UserError(text, "names no camera", "write it as v4l2:///dev/video0")
        return SourceAddress("camera", text, device=int(found[1] or found[2]), settings=read_settings(text, query, OF_CAMERAS))
    kind: SourceKind = "csi" if scheme == "csi" else "drawn"
    if not re.fullmatch(r"\d{0,9}", place) or (scheme == "csi" and not place):
        raise UserError(text, f"{place or 'nothing'} is no number", f"write it as {scheme}://0")
    known = OF_CSI if kind == "csi" else OF_DRAWN
    return SourceAddress(kind, text, device=int(place or 0), settings=read_settings(text, query, known))


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
        inner = folder_of_images(folder)
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
    """`url` with the passwords in it shown as `***`, for messages."""
    return SECRET.sub(r"\1***", re.sub(r"(//[^/@:\s]*):[^/\s]*@", r"\1:***@", url))
