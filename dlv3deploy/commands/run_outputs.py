"""Where the results of `run` go: the sinks of each of its sources, and the live page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from dlv3deploy.core.classes import Classes
    from dlv3deploy.video import Overlay, Sink, Source, SourceAddress, Stream

NUMBER = "{stream}"


def sink_texts(given: Sequence[str], addresses: Sequence[SourceAddress], place: Workspace, *, serve: bool) -> list[list[str]]:
    """What each source's sinks are called, by the command line or by default.

    Raises UserError where several sources would write to one file, or ask for what shows one source only.
    """
    if len(addresses) == 1:
        return [[text.replace(NUMBER, "0") for text in given] or ([] if serve else [_default_sink(addresses[0], place)])]
    if serve:
        raise UserError(f"--serve with {len(addresses)} sources", "a page shows one", "serve one source, or write files")
    for text in given:
        if text == "window":
            rule = "a window shows one"
            raise UserError(f"--sink window with {len(addresses)} sources", rule, f"write files: --sink out-{NUMBER}.mp4")
        if text != "none" and NUMBER not in text:
            rule = f"is one name for {len(addresses)} sources"
            raise UserError(f"--sink {text}", rule, f"put their number into it: --sink out-{NUMBER}.mp4")
    if not given and any(address.is_live for address in addresses):
        rule = "live ones have no file by default, and a window shows one"
        raise UserError(f"{len(addresses)} sources without --sink", rule, f"write files: --sink out-{NUMBER}.mp4, or none")
    texts = [[text.replace(NUMBER, str(n)) for text in given] for n in range(len(addresses))]
    defaults = [[_default_sink(address, place)] for address in addresses]
    if not given and len({text for (text,) in defaults}) < len(defaults):
        raise UserError("sources of one name", "would be labelled in one file", f"name the files: --sink out-{NUMBER}.mp4")
    return texts if given else defaults


def open_streams(sources: Sequence[Source], texts: Sequence[Sequence[str]], classes: Classes) -> list[Stream]:
    """Each source with its sinks; when one cannot be opened, the others are closed."""
    from dlv3deploy.video import Stream, open_sinks

    read = [path for source in sources for path in source.paths]
    with ExitStack() as opened:
        streams = [
            Stream(source, opened.enter_context(open_sinks(each, classes, source, read)))
            for source, each in zip(sources, texts, strict=True)
        ]
        opened.pop_all()
    return streams


def with_page(sink: Sink, serve: str, classes: Classes, overlay: Overlay, about: Mapping[str, str]) -> Sink:
    """`sink` and a live page; when that cannot be served, `sink` is closed."""
    from dlv3deploy.video import LivePage, Tee, parse_page_address

    try:
        return Tee([sink, LivePage(parse_page_address(serve), classes, overlay, about)])
    except BaseException:
        sink.close()
        raise


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
