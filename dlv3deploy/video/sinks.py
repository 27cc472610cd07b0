"""The one grammar in which every sink is named: `--sink`, which may be given several times."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.video.broadcast import Broadcast, files_in, pipeline_of
from dlv3deploy.video.folders import MaskFolder, OverlayFolder
from dlv3deploy.video.frames import Source
from dlv3deploy.video.growing import CODECS
from dlv3deploy.video.json_lines import SUFFIXES, JsonLines
from dlv3deploy.video.picture_file import PictureFile
from dlv3deploy.video.recording import LiveRecording, VideoRecording
from dlv3deploy.video.sink import NullSink, Sink, Tee
from dlv3deploy.video.window import TITLE, SlideShow, Window

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
WORKS = (
    f"use none, window, a video file ({', '.join(CODECS)}), a picture ({', '.join(PICTURE_SUFFIXES)}) for one frame, "
    f"JSON lines ({', '.join(SUFFIXES)}), a folder (ending in /) for masks, 'FOLDER/*.jpg' for pictures, rtsp://HOST/PATH of a "
    "server that records, or gst:PIPELINE"
)


def is_picture(text: str) -> bool:
    """Whether a sink of this name is a picture of one frame."""
    text = text.strip()
    path = Path(text).expanduser()
    is_other = text.lower().startswith("gst:") or "://" in text or text.endswith("/") or path.stem == "*" or path.is_dir()
    return path.suffix.lower() in PICTURE_SUFFIXES and not is_other


def open_sink(text: str, classes: Classes, source: Source, read: Sequence[Path] = (), title: str = TITLE) -> Sink:
    """The sink that `text` names, for the frames of `source`: its rate, and whether it is live, decide how a video plays.

    Raises UserError when `text` names no sink, when what it names cannot be written, and when it would replace what
    `source` reads, or others do: `read`. `title` is a window's.
    """
    taken = {path.resolve() for path in (*source.paths, *read)}
    text = text.strip()
    if text == "none":
        return NullSink()
    if text == "window":
        return (SlideShow if not source.live and source.fps is None else Window)(title)
    if text.lower().startswith(("gst:", "rtsp://")):
        shown, pipeline = pipeline_of(text)
        if taken & {path.resolve() for path in files_in(pipeline)}:
            raise _would_overwrite(shown)
        return Broadcast(shown, pipeline, source.fps, source.live)
    if not text or "://" in text:
        raise UserError(f"sink {text!r}", "is no kind of sink", WORKS)
    path = Path(text).expanduser()
    suffix = path.suffix.lower()
    is_overlays = path.stem == "*" and suffix in PICTURE_SUFFIXES
    if suffix in (*CODECS, *SUFFIXES, *PICTURE_SUFFIXES) and path.is_dir() and not text.endswith("/"):
        raise UserError(text, "is a folder", f"end it in / for masks in it: {text}/, or name another file")
    if is_overlays or text.endswith("/") or path.is_dir() or not suffix:
        folder = path.parent if is_overlays else path
        if folder.resolve() in {path.parent for path in taken}:
            raise _would_overwrite(text)
        return OverlayFolder(folder, suffix) if is_overlays else MaskFolder(folder, classes)
    if path.resolve() in taken:
        raise _would_overwrite(text)
    if suffix in CODECS:
        return LiveRecording(path, source.fps) if source.live else VideoRecording(path, source.fps)
    if suffix in SUFFIXES:
        return JsonLines(path, classes)
    if suffix in PICTURE_SUFFIXES:
        return PictureFile(path)
    raise UserError(text, f"{path.suffix} is no suffix of a sink", WORKS)


def open_sinks(texts: Sequence[str], classes: Classes, source: Source, read: Sequence[Path] = (), title: str = TITLE) -> Sink:
    """One sink for all that `texts` name; without any, nothing is kept. When one cannot be opened, the others are closed."""
    with ExitStack() as opened:
        sinks = [opened.enter_context(open_sink(text, classes, source, read, title)) for text in texts]
        opened.pop_all()
    return sinks[0] if len(sinks) == 1 else Tee(sinks)


def _would_overwrite(text: str) -> UserError:
    return UserError(text, "is what the source reads, and would be overwritten", "give the sink another name")
