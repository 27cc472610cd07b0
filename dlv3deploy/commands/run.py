"""`dlv3deploy run`: a camera, a stream or files through a model, to a window, a video or masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dlv3deploy.commands.options import (
    SIZE,
    ClassesOption,
    FlipOption,
    IgnoreIndexOption,
    JsonOption,
    MeanOption,
    ModelArgument,
    OutputOption,
    ScalesOption,
    StdOption,
    WorkspaceOption,
    describe,
    given_options,
    parse_size,
    parse_strategy,
)
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace

if TYPE_CHECKING:
    from dlv3deploy.video import RunFacts

INTERRUPTED = 130


def run(
    context: typer.Context,
    model: ModelArgument = None,
    workspace: WorkspaceOption = DEFAULT_ROOT,
    camera: Annotated[list[int] | None, typer.Option(help="Number of a camera: 0 is /dev/video0.", min=0)] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="A video, image, folder or glob, rtsp://, http://, v4l2://, csi://, gst: or test://; may be repeated, "
            "as --camera: several go through the model together."
        ),
    ] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            help="window, none, FILE.mp4, FILE.png, FILE.jsonl, FOLDER/ for masks, 'FOLDER/*.jpg', rtsp://HOST/PATH, "
            "gst:PIPELINE; may be repeated. Of several sources {stream} is the number. Default: a window for live sources, "
            "else a file in the workspace."
        ),
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(help="Serve a live page of all sources at this PORT of this machine, or HOST:PORT."),
    ] = None,
    size: Annotated[str | None, typer.Option(help=f"Input {SIZE} for a model of dynamic size.")] = None,
    scales: ScalesOption = None,
    flip: FlipOption = False,
    opacity: Annotated[float, typer.Option(help="Of the class colours over the picture.", min=0, max=1)] = 0.5,
    steady: Annotated[
        float | None,
        typer.Option(help="Smooth scores over frames where nothing moves: the past's share, such as 0.5; masks flicker less."),
    ] = None,
    every: Annotated[int, typer.Option(help="Work on every so many-th frame of the source.", min=1)] = 1,
    max_fps: Annotated[float | None, typer.Option(help="Work on no more frames a second than this.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Stop after this many frames.", min=1)] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print percentiles of every stage at the end.")] = False,
    json_output: JsonOption = False,
    classes: ClassesOption = None,
    ignore_index: IgnoreIndexOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    output: OutputOption = None,
) -> None:
    """Label what a camera or a video shows. Live sources give their newest frame, files every frame; Ctrl-C ends cleanly."""
    import json
    from contextlib import ExitStack
    from dataclasses import asdict

    from dlv3deploy.commands.models import best_artefact, open_model
    from dlv3deploy.commands.run_outputs import check_pictures, open_streams, sink_texts, with_page
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.progress import say
    from dlv3deploy.core.segmenter import Segmenter
    from dlv3deploy.core.steadiness import Steadiness
    from dlv3deploy.video import Meter, Overlay, ThinnedSource, open_source, parse_source, run_streams

    if not camera and not source:
        raise UserError("no source", "a run has one or more", "give --camera 0 or --source FILE")
    if max_fps is not None and not 0 < max_fps < float("inf"):
        raise UserError(f"--max-fps {max_fps}", "is a number of frames above 0", "give 10, or leave it out")
    strategy = parse_strategy(scales, flip)
    addresses = [parse_source(text) for text in (*(f"camera {number}" for number in camera or ()), *(source or ()))]
    place = Workspace(workspace)
    texts = sink_texts(sink or (), addresses, place, serve=serve is not None)
    chosen = model or best_artefact(place, together=len(addresses))
    with open_model(chosen, describe(classes, ignore_index, mean, std, output)) as engine, ExitStack() as opened:
        steadiness = None if steady is None else Steadiness(steady)
        segmenter = Segmenter(engine, parse_size(size) if size else None, strategy, steadiness)
        sources = [opened.enter_context(open_source(address)) for address in addresses]
        if every > 1:
            sources = [ThinnedSource(each, every) for each in sources]
        known, overlay = engine.spec.classes, Overlay(engine.spec.classes, opacity)
        titles = [address.text for address in addresses]
        check_pictures(texts, sources, max_frames)
        streams = open_streams(sources, texts, known, titles)
        if serve is not None:
            about = {"model": str(chosen), "engine": engine.name, "views": str(strategy), "source": ", ".join(titles)}
            streams = with_page(streams, serve, known, overlay, about, titles)
        if "opacity" in given_options(context) and not serve and not any(stream.sink.wants_overlay for stream in streams):
            for stream in streams:
                stream.sink.close()
            rule = "is of the class colours over the picture, and no sink here shows one"
            raise UserError("--opacity", rule, "add --sink window or --sink FILE.mp4, or leave it out")
        for each, address in zip(sources, addresses, strict=True):
            if each.truth_classes not in (None, known):
                say(f"{address.text}: not scored, for the model's classes are not those of its true masks")
        meter = Meter()
        try:
            runs = run_streams(streams, segmenter, overlay, max_frames=max_frames, max_fps=max_fps, on_frame=meter)
        finally:
            meter.close()
        for address, facts, names in zip(addresses, runs, texts, strict=True):
            say(f"{address.text}: {facts.summary()}" if len(runs) > 1 else facts.summary())
            for name in names:
                if name not in ("window", "none") and facts.frames:
                    say(f"wrote {name}")
            if stats and not json_output:
                _print_stats(address.text, facts)
        if json_output:
            found = [asdict(facts) | {"sinks": names} for facts, names in zip(runs, texts, strict=True)]
            asked = {"engine": engine.name, "scales": strategy.scales, "flip": strategy.flip, "steady": steady, "page": serve}
            named = [{"source": address.text} | each for address, each in zip(addresses, found, strict=True)]
            print(json.dumps((found[0] if len(found) == 1 else {"streams": named}) | asked, ensure_ascii=False))
    if any(facts.interrupted for facts in runs):
        raise typer.Exit(INTERRUPTED)


def _print_stats(source: str, facts: RunFacts) -> None:
    from dlv3deploy.commands.tables import print_records

    times = {
        "preprocessing": facts.preprocess_ms,
        "inference": facts.latency_ms,
        "postprocessing": facts.postprocess_ms,
        "capture to mask": facts.delay_ms,
        "glass to mask": facts.glass_ms,
    }
    records = [(what, *(f"{ms:.1f}" for ms in (t.p50, t.p90, t.p99))) for what, t in times.items() if t is not None]
    notes = ["milliseconds a frame; " + facts.summary()]
    if facts.glass_ms is not None:
        notes.append("glass to mask: from the time that the frames' own code says; on the machine whose clock made it")
    print_records(f"times of a frame, {source}", ("stage", "p50", "p90", "p99"), records, notes)
