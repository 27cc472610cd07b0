"""`dlv3deploy benchmark`: how long models take on this machine, in turns, and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlv3deploy.commands.options import (
    SIZE,
    ClassesOption,
    IgnoreIndexOption,
    JsonOption,
    MeanOption,
    OutputOption,
    StdOption,
    WorkspaceOption,
    describe,
    given_options,
    parse_size,
)
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace

if TYPE_CHECKING:
    from dlv3deploy.core.images import Frame
    from dlv3deploy.core.segmenter import Segmenter
    from dlv3deploy.measure.benchmark import Speed

FRAME = "720x1280"
FRAMES = 16
CAMERA_FPS, CAMERA_S = 30.0, 3.0
LAYER_RUNS = 20
SMALLEST_SHARE = 0.01  # of all layers' time; what is below is one line together


def benchmark(
    context: typer.Context,
    artefacts: Annotated[
        list[Path] | None,
        typer.Argument(help="Checkpoints, ONNX files or engines; default: the workspace's best one for this machine."),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_ROOT,
    source: Annotated[
        str | None,
        typer.Option(help=f"Video, image, folder or glob: its first {FRAMES} frames; default: drawn scenes."),
    ] = None,
    frame: Annotated[str, typer.Option(help=f"{SIZE} of the drawn scenes.")] = FRAME,
    seconds: Annotated[float, typer.Option(help="How long to measure, all models together.", min=0)] = 10.0,
    layers: Annotated[bool, typer.Option("--layers", help="Also time every layer of the models.")] = False,
    size: Annotated[str | None, typer.Option(help=f"Input {SIZE} for models of dynamic size.")] = None,
    json_output: JsonOption = False,
    classes: ClassesOption = None,
    ignore_index: IgnoreIndexOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    output: OutputOption = None,
) -> None:
    """Time models from a frame's pixels to its mask: several in turns, round after round, so that ratios hold."""
    import json
    from contextlib import ExitStack

    from dlv3deploy.commands.models import best_artefact, open_model
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.foreign import Description
    from dlv3deploy.core.segmenter import Segmenter
    from dlv3deploy.measure.benchmark import benchmark as measure

    if source is not None and "frame" in given_options(context):
        raise UserError("--frame with --source", "is the size of drawn scenes", "leave one of them out")
    paths = artefacts or [best_artefact(Workspace(workspace))]
    if layers and (checkpoints := [str(path) for path in paths if path.suffix == ".safetensors"]):
        rule = "layers of a checkpoint are not timed"
        raise UserError(f"--layers with {', '.join(checkpoints)}", rule, "give its ONNX file or an engine")
    description = describe(classes, ignore_index, mean, std, output)
    with ExitStack() as opened:
        foreign = [path.suffix == ".onnx" and not _describes_itself(path) for path in paths]
        described = [description if is_foreign or not any(foreign) else Description() for is_foreign in foreign]
        engines = [opened.enter_context(open_model(*each)) for each in zip(paths, described, strict=True)]
        segmenters = [Segmenter(engine, parse_size(size) if size else None) for engine in engines]
        frames = _frames(source, frame)
        speeds = measure(segmenters, frames, seconds)
        facts = [_facts(p, s, speed) for p, s, speed in zip(paths, segmenters, speeds, strict=True)]
        for segmenter, entry in zip(segmenters, facts, strict=True):
            entry["glass_to_mask_ms"] = _glass_to_mask(segmenter, frames)
        if layers:
            for path, segmenter, entry in zip(paths, segmenters, facts, strict=True):
                entry["layers"] = _layers(path, segmenter, frames[0])
    height, width = frames[0].shape[:2]
    if json_output:
        first = {"latency_ms": facts[0]["latency_ms"], "frame": [height, width], "rounds": len(speeds[0].ms)}
        print(json.dumps(first | {"models": facts}, ensure_ascii=False))
        return
    _print(facts, f"{len(speeds[0].ms)} rounds of frames of {height}×{width}, one model after the other")


def _describes_itself(path: Path) -> bool:
    from dlv3deploy.core.graph import embedded_spec, load_onnx

    return embedded_spec(load_onnx(path), str(path)) is not None


def _frames(source: str | None, size: str) -> list[Frame]:
    """The first ones of a source that ends, or of a drive through a drawn town."""
    if source is None:
        from dlv3deploy.scenes import Drive

        drive = Drive(0, *parse_size(size))
        return [drive.at(float(second))[0] for second in range(FRAMES)]
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.progress import say
    from dlv3deploy.video import open_source, parse_source

    address = parse_source(source)
    if address.is_live:
        raise UserError(f"--source {source}", "is live, and models are compared on the same frames", "give a file or a folder")
    found: list[Frame] = []
    with open_source(address) as opened:
        while len(found) < FRAMES and (captured := opened.read()) is not None:
            found.append(captured.pixels)
    alike = [pixels for pixels in found if pixels.shape == found[0].shape]
    if len(alike) < len(found):
        say(f"{source}: {len(found) - len(alike)} of {len(found)} frames are of another size than the first and are left out")
    return alike


def _facts(path: Path, segmenter: Segmenter, speed: Speed) -> dict[str, Any]:
    size = [segmenter.input.height, segmenter.input.width]
    times = {"latency_ms": speed.latency_ms(), "stages_ms": speed.stages_ms()}
    return {"model": str(path), "engine": segmenter.engine.name, "input": size, **times}


def _glass_to_mask(segmenter: Segmenter, frames: Sequence[Frame]) -> dict[str, float] | None:
    """Percentiles in ms from the time in a frame's code until its mask, the frames played as a camera's; None for tiny ones."""
    from dataclasses import asdict

    from dlv3deploy.video import Overlay, ReplayedSource, run_pipeline
    from dlv3deploy.video.sink import NullSink

    camera = ReplayedSource(frames, CAMERA_FPS, CAMERA_S)
    facts = run_pipeline(camera, segmenter, NullSink(), Overlay(segmenter.engine.spec.classes))
    if facts.interrupted:
        raise KeyboardInterrupt
    return asdict(facts.glass_ms) if facts.glass_ms else None


def _layers(path: Path, segmenter: Segmenter, frame: Frame) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from dlv3deploy.core.preprocess import preprocess
    from dlv3deploy.engines.open import layer_times

    batch, _ = preprocess(frame, segmenter.input)
    return [asdict(layer) for layer in layer_times(path, segmenter.engine.spec, batch, LAYER_RUNS)]


def _print(facts: Sequence[dict[str, Any]], about: str) -> None:
    from dlv3deploy.commands.tables import print_records
    from dlv3deploy.measure.benchmark import STAGES

    first = facts[0]["latency_ms"]["p50"]
    header = ("model", "p50", "p90", "p99", *STAGES, "frames/s", "glass to mask", *(("as fast",) if len(facts) > 1 else ()))
    records = []
    for entry in facts:
        latency, stages = entry["latency_ms"], entry["stages_ms"]
        times = [f"{value:.1f}" for value in (*latency.values(), *(stages[name] for name in STAGES))]
        ratio = [f"{first / latency['p50']:.2f}×"] if len(facts) > 1 else []
        glass = entry["glass_to_mask_ms"]
        whole = f"{glass['p50']:.0f}, {glass['p90']:.0f}, {glass['p99']:.0f}" if glass else "–"
        records.append((entry["model"], *times, f"{1000 / latency['p50']:.1f}", whole, *ratio))
    notes = [f"{entry['model']}: {entry['engine']}, input {entry['input'][0]}×{entry['input'][1]}" for entry in facts]
    notes.append("milliseconds a frame; of the stages medians; frames a second of one after the other, at the median")
    played = f"the frames played for {CAMERA_S:.0f} s as a camera's, {CAMERA_FPS:.0f} a second"
    notes.append(f"glass to mask: p50, p90 and p99 from the time code in a frame to its mask, {played}")
    print_records(about, header, records, notes)
    for entry in facts:
        if "layers" in entry:
            _print_layers(entry)


def _print_layers(entry: dict[str, Any]) -> None:
    from dlv3deploy.commands.tables import print_records

    whole = sum(layer["ms"] for layer in entry["layers"])
    slow = [layer for layer in entry["layers"] if layer["ms"] >= SMALLEST_SHARE * whole]
    slow.sort(key=lambda layer: -layer["ms"])
    records = [(layer["name"], layer["kind"], f"{layer['ms']:.3f}", f"{layer['ms'] / whole:.1%}") for layer in slow]
    rest = whole - sum(layer["ms"] for layer in slow)
    if others := len(entry["layers"]) - len(slow):
        records.append((f"{others} others", "", f"{rest:.3f}", f"{rest / whole:.1%}"))
    note = f"medians of {LAYER_RUNS} runs in milliseconds, {whole:.1f} together; to time every layer slows them"
    print_records(f"layers of {entry['model']}", ("layer", "kind", "ms", "share"), records, [note])
