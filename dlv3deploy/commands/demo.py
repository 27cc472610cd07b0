"""`dlv3deploy demo`: the whole chain on generated road scenes, on a CPU, in about two minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlv3deploy.core.classes import Classes
    from dlv3deploy.core.datasets import Dataset
    from dlv3deploy.core.images import Frame, Mask
    from dlv3deploy.measure.evaluate import Comparison
    from dlv3deploy.measure.page import Row
    from dlv3deploy.video import RunFacts

HEIGHT, WIDTH = 192, 320
TRAIN_IMAGES, VAL_IMAGES, SHOWN = 320, 48, 3
VIDEO_SECONDS, VIDEO_FPS = 6.0, 15.0


def demo(
    workspace: Annotated[Path, typer.Option("--workspace", "-w", help="Folder for everything that the demo makes.")] = Path(
        "artifacts/demo"
    ),
    steps: Annotated[int, typer.Option(help="Training steps; 240 take 1.5 to 4 minutes on two cores.", min=20)] = 240,
    seed: Annotated[int, typer.Option(help="Another seed draws other streets.", min=0)] = 0,
) -> None:
    """Generate road scenes, train, export, build FP32 and INT8 engines, label a video, evaluate, and write a page."""
    import time

    from dlv3deploy.commands.build_engine import build_engine
    from dlv3deploy.commands.export import export
    from dlv3deploy.core.datasets import open_dataset
    from dlv3deploy.core.progress import say
    from dlv3deploy.scenes import Drive, write_dataset, write_video

    started = time.monotonic()
    _claim(workspace)
    place, data, video = Workspace(workspace), workspace / "data", workspace / "drive.mp4"
    say(f"1/6  painting {TRAIN_IMAGES + VAL_IMAGES} road scenes and a video with exact labels")
    write_dataset(data, TRAIN_IMAGES, VAL_IMAGES, seed, (HEIGHT, WIDTH))
    write_video(video, Drive(2 * seed + 1, HEIGHT, WIDTH), VIDEO_SECONDS, VIDEO_FPS)
    say(f"2/6  training {steps} steps from random weights (no published weights are used)")
    _train(place, data, steps, seed)
    say("3/6  exporting to ONNX")
    export(workspace=workspace)
    say("4/6  building engines: FP32, then INT8")
    for old in place.engines():
        old.unlink()
    build_engine(workspace=workspace, fp32=True, backend="onnxruntime")
    build_engine(workspace=workspace, int8=True, backend="onnxruntime")
    say("5/6  labelling the video")
    facts = _label_video(place, video, workspace / "drive.labelled.mp4")
    say(facts.summary())
    say("6/6  evaluating the checkpoint and both engines")
    val = open_dataset(data, "val")
    comparisons, rows = _compare(place, val)
    seconds = time.monotonic() - started
    page = workspace / "demo.html"
    _write_page(page, place, comparisons, rows, facts, seconds)
    _print_table(comparisons, page, workspace / "drive.labelled.mp4", seconds)


def _claim(workspace: Path) -> None:
    """Mark the folder as the demo's own. Raises UserError when it holds anything that another command made."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.files import write_text

    mark = workspace / "made-by-demo.txt"
    if workspace.is_dir() and any(workspace.iterdir()) and not mark.exists():
        raise UserError(str(workspace), "holds files that the demo did not make", "give --workspace a folder of its own")
    write_text(mark, "dlv3deploy demo made this folder and replaces what is in it.\n")


def _train(place: Workspace, data: Path, steps: int, seed: int) -> None:
    from dlv3deploy.core.classes import read_classes
    from dlv3deploy.core.spec import Architecture, InputSpec
    from dlv3deploy.train.loop import train
    from dlv3deploy.train.plan import TrainingPlan

    plan = TrainingPlan(
        data=data,
        classes=read_classes(str(data / "classes.json")),
        architecture=Architecture("resnet18", output_stride=16, aspp_channels=64),
        input=InputSpec(HEIGHT, WIDTH),
        crop=(128, 192),
        scale=(0.6, 1.25),
        steps=steps,
        batch_size=8,
        validate_every=max(1, steps // 3),
        seed=seed,
    )
    train(plan, place.checkpoint, place.training)


def _label_video(place: Workspace, video: Path, target: Path) -> RunFacts:
    from dlv3deploy.commands.models import best_artefact, open_model
    from dlv3deploy.core.foreign import Description
    from dlv3deploy.core.segmenter import Segmenter
    from dlv3deploy.video import Overlay, open_sinks, open_source, parse_source, run_pipeline

    with open_model(best_artefact(place), Description()) as engine, open_source(parse_source(str(video))) as source:
        sink = open_sinks([str(target)], engine.spec.classes, source)
        return run_pipeline(source, Segmenter(engine), sink, Overlay(engine.spec.classes))


def _compare(place: Workspace, val: Dataset) -> tuple[list[Comparison], list[Row]]:
    """Scores of the checkpoint and the engines, and what each makes of a few validation images beside the truth."""
    from dlv3deploy.commands.models import open_model
    from dlv3deploy.core.foreign import Description
    from dlv3deploy.core.segmenter import Segmenter
    from dlv3deploy.engines.timing import measure_latency
    from dlv3deploy.measure.evaluate import Comparison, evaluate
    from dlv3deploy.measure.page import Picture, Row

    shown = [val.samples[i * len(val) // SHOWN] for i in range(SHOWN)]
    pictures: list[list[Picture]] = []
    for sample in shown:
        frame, label = sample.read()
        pictures.append([Picture.of("camera", frame), Picture.of("truth", _tinted(frame, label, val.classes))])
    comparisons = []
    for name, path in (
        ("checkpoint, FP32, PyTorch", place.checkpoint),
        *((f"engine, {path.suffixes[0][1:].upper()}, ONNX Runtime", path) for path in place.engines()),
    ):
        with open_model(path, Description()) as engine:
            segmenter = Segmenter(engine)
            latency = measure_latency(engine)
            comparisons.append(Comparison(name, evaluate(segmenter, val.samples), latency.p50_ms, path.stat().st_size / 1e6))
            for sample, row in zip(shown, pictures, strict=True):
                frame, _ = sample.read()
                row.append(Picture.of(name, _tinted(frame, segmenter(frame), val.classes)))
    return comparisons, [Row(sample.image.stem, row) for sample, row in zip(shown, pictures, strict=True)]


def _tinted(frame: Frame, mask: Mask, classes: Classes) -> Frame:
    """The frame in the colours of its classes, without a legend: the page has one for all pictures."""
    import cv2
    import numpy as np

    from dlv3deploy.core.images import colours_of

    return np.asarray(cv2.addWeighted(frame, 0.35, colours_of(classes)[mask], 0.65, 0), np.uint8)


def _write_page(
    path: Path, place: Workspace, comparisons: Sequence[Comparison], rows: Sequence[Row], facts: RunFacts, seconds: float
) -> None:
    from dlv3deploy.core.checkpoints import checkpoint_facts
    from dlv3deploy.measure.page import Page, Picture

    spec = checkpoint_facts(place.checkpoint).spec
    steps = spec.training.steps if spec.training else 0
    architecture = spec.architecture
    network = f"DeepLabv3 {architecture.backbone}, output stride {architecture.output_stride}" if architecture else "DeepLabv3"
    Page(
        title="dlv3deploy demo",
        summary=(
            f"{network}, best at step {steps}, trained from random weights.",
            f"Trained on {TRAIN_IMAGES} generated scenes of {WIDTH}×{HEIGHT}, scored on {VAL_IMAGES} of other streets.",
            "No published weights and no network were used.",
            f"Video: {facts.summary()}.",
            f"The whole demo took {seconds:.0f} s on this machine.",
        ),
        comparisons=comparisons,
        classes=spec.classes,
        rows=rows,
        curve=Picture("training loss and validation mIoU", (place.training / "curve.png").read_bytes(), "png"),
    ).write(path)


def _print_table(comparisons: Sequence[Comparison], page: Path, video: Path, seconds: float) -> None:
    from rich.table import Table

    from dlv3deploy.commands.tables import print_table

    table = Table("model", "mIoU", "pixel accuracy", "latency", "size")
    for column in table.columns[1:]:
        column.justify = "right"
    for entry in comparisons:
        table.add_row(
            entry.name,
            f"{entry.scores.miou:.4f}",
            f"{entry.scores.pixel_accuracy:.4f}",
            f"{entry.latency_ms:.1f} ms",
            f"{entry.size_mb:.1f} MB",
        )
    print_table(f"demo, {VAL_IMAGES} validation scenes", table)
    print(f"page:  {page}\nvideo: {video}\ntook {seconds:.0f} s")
