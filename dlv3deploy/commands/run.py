"""`dlv3deploy run`: a camera, a stream or files through a model, to a window, a video or masks."""

from __future__ import annotations

from collections.abc import Sequence
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
    from dlv3deploy.core.segmenter import Segmenter
    from dlv3deploy.video import Overlay, RunFacts, Sink, Source, SourceAddress

INTERRUPTED = 130


def run(
    context: typer.Context,
    model: ModelArgument = None,
    workspace: WorkspaceOption = DEFAULT_ROOT,
    camera: Annotated[int | None, typer.Option(help="Number of a camera: 0 is /dev/video0.", min=0)] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Instead: a video, image, folder or glob, rtsp://, http://, v4l2://, csi://, gst: or test://."),
    ] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            help="window, none, FILE.mp4, FILE.png, FILE.jsonl, FOLDER/ for masks, 'FOLDER/*.jpg'; may be repeated. "
            "Default: a window for live sources, else a file in the workspace."
        ),
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(help="Serve a live page at this PORT of this machine, or HOST:PORT, for a machine without a screen."),
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
    from dataclasses import asdict

    from dlv3deploy.commands.models import best_artefact, open_model
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.interrupts import termination_as_interrupt
    from dlv3deploy.core.progress import say
    from dlv3deploy.core.segmenter import Segmenter
    from dlv3deploy.core.steadiness import Steadiness
    from dlv3deploy.video import Meter, Overlay, ThinnedSource, open_source, parse_source, run_pipeline

    if (camera is None) == (source is None):
        raise UserError(
            "no source" if source is None else "--camera and --source",
            "a run has one source",
            "give --camera 0 or --source FILE",
        )
    if max_fps is not None and not 0 < max_fps < float("inf"):
        raise UserError(f"--max-fps {max_fps}", "is a number of frames above 0", "give 10, or leave it out")
    strategy = parse_strategy(scales, flip)
    address = parse_source(f"camera {camera}" if source is None else source)
    place = Workspace(workspace)
    chosen = model or best_artefact(place)
    with open_model(chosen, describe(classes, ignore_index, mean, std, output)) as engine:
        steadiness = None if steady is None else Steadiness(steady)
        segmenter = Segmenter(engine, parse_size(size) if size else None, strategy, steadiness)
        captured = open_source(address)
        opened = ThinnedSource(captured, every) if every > 1 else captured
        with opened:
            texts = sink or ([] if serve else [_default_sink(address, place)])
            overlay = Overlay(engine.spec.classes, opacity)
            sinks = _open_sinks(texts, serve, opened, segmenter, overlay, {"model": str(chosen), "source": address.text})
            if "opacity" in given_options(context) and not sinks.wants_overlay and not serve:
                sinks.close()
                rule = "is of the class colours over the picture, and no sink here shows one"
                raise UserError("--opacity", rule, "add --sink window or --sink FILE.mp4, or leave it out")
            meter = Meter()
            try:
                with termination_as_interrupt():
                    facts = run_pipeline(
                        opened, segmenter, sinks, overlay, max_frames=max_frames, max_fps=max_fps, on_frame=meter
                    )
            finally:
                meter.close()
        say(facts.summary())
        for text in texts:
            if text not in ("window", "none") and facts.frames:
                say(f"wrote {text}")
        if stats and not json_output:
            _print_stats(facts)
        if json_output:
            about = {
                "engine": engine.name,
                "scales": strategy.scales,
                "flip": strategy.flip,
                "steady": steady,
                "sinks": texts,
                "page": serve,
            }
            print(json.dumps(asdict(facts) | about, ensure_ascii=False))
    if facts.interrupted:
        raise typer.Exit(INTERRUPTED)


def _open_sinks(
    texts: Sequence[str], serve: str | None, source: Source, segmenter: Segmenter, overlay: Overlay, about: dict[str, str]
) -> Sink:
    """One sink for what `texts` name and for the live page."""
    from dlv3deploy.video import LivePage, Tee, open_sinks, parse_page_address

    classes = segmenter.engine.spec.classes
    page_address = parse_page_address(serve) if serve else None
    sinks = open_sinks(texts, classes, source)
    if page_address is None:
        return sinks
    facts = about | {
        "engine": segmenter.engine.name,
        "input": f"{segmenter.input.height}×{segmenter.input.width}",
        "classes": str(len(classes)),
        "views": str(segmenter.strategy),
    }
    try:
        return Tee([sinks, LivePage(page_address, classes, overlay, facts)])
    except BaseException:
        sinks.close()
        raise


def _print_stats(facts: RunFacts) -> None:
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
    print_records("times of a frame", ("stage", "p50", "p90", "p99"), records, notes)


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
