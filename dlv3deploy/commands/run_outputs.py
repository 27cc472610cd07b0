"""Where the results of `run` go: the sinks of each of its sources, and the live page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from dlv3deploy.core.classes import Classes
    from dlv3deploy.video import Overlay, Source, SourceAddress, Stream

NUMBER = "{stream}"


def sink_texts(given: Sequence[str], addresses: Sequence[SourceAddress], place: Workspace, *, serve: bool) -> list[list[str]]:
    """What each source's sinks are called, by the command line or by default.

    Raises UserError where several sources would write to one file, or ask for what shows one source only.
    """
    if doubled := next((text for text in given if text != "none" and given.count(text) > 1), None):
        raise UserError(f"--sink {doubled}", "is given twice", "give it once")
    if len(addresses) == 1:
        return [[text.replace(NUMBER, "0") for text in given] or ([] if serve else [_default_sink(addresses[0], place)])]
    for text in given:
        if text not in ("none", "window") and NUMBER not in text:
            rule = f"is one name for {len(addresses)} sources"
            path = Path(text)
            raise UserError(f"--sink {text}", rule, f"put their number into it: --sink {path.stem}-{NUMBER}{path.suffix}")
    texts = [[text.replace(NUMBER, str(n)) for text in given] for n in range(len(addresses))]
    if serve:
        return texts
    defaults = [[_default_sink(address, place)] for address in addresses]
    files = [text for (text,) in defaults if text != "window"]
    if not given and len(set(files)) < len(files):
        raise UserError("sources of one name", "would be labelled in one file", f"name the files: --sink out-{NUMBER}.mp4")
    return texts if given else defaults


def check_pictures(texts: Sequence[Sequence[str]], sources: Sequence[Source], most: int | None) -> None:
    """Raise UserError, before anything is replaced, where a picture is asked for of a source that has more than one frame."""
    from dlv3deploy.video.sinks import is_picture

    for of_source, source in zip(texts, sources, strict=True):
        for text in of_source:
            if most != 1 and source.frame_count != 1 and is_picture(text):
                rule = "a picture holds one frame, and the source has more"
                works = "end the name in .mp4 for a video, name a folder for masks, or take one frame: --max-frames 1"
                raise UserError(f"--sink {text}", rule, works)


def open_streams(
    sources: Sequence[Source], texts: Sequence[Sequence[str]], classes: Classes, titles: Sequence[str]
) -> list[Stream]:
    """Each source with its sinks, windows of several with titles; when one cannot be opened, the others are closed."""
    from dlv3deploy.video import Stream, open_sinks

    read = [path for source in sources for path in source.paths]
    named = [(f"{number}: {title}",) if len(titles) > 1 else () for number, title in enumerate(titles)]
    with ExitStack() as opened:
        streams = [
            Stream(source, opened.enter_context(open_sinks(each, classes, source, read, *title)))
            for source, each, title in zip(sources, texts, named, strict=True)
        ]
        opened.pop_all()
    return streams


def with_page(
    streams: Sequence[Stream], serve: str, classes: Classes, overlay: Overlay, about: Mapping[str, str], titles: Sequence[str]
) -> list[Stream]:
    """The streams with a live page that shows them; when that cannot be served, their sinks are closed."""
    from dlv3deploy.video import LivePage, Stream, Tee, parse_page_address

    try:
        page = LivePage(parse_page_address(serve), classes, overlay, about, titles)
    except BaseException:
        for stream in streams:
            stream.sink.close()
        raise
    return [Stream(stream.source, Tee([stream.sink, sink])) for stream, sink in zip(streams, page.sinks, strict=True)]


def _default_sink(address: SourceAddress, place: Workspace) -> str:
    """A window for what is live; for files something to keep, so that the command also serves a machine without a screen."""
    if address.is_live:
        return "window"
    if address.kind == "file":
        return str(place.root / f"{address.paths[0].stem}.labelled.mp4")
    if address.kind == "drawn":
        return str(place.root / "drawn.labelled.mp4")
    if address.kind == "image":
        return str(place.root / f"{address.paths[0].stem}.labelled.png")
    return f"{place.root / 'masks'}/"
