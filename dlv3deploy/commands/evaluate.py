"""`dlv3deploy evaluate`: what a model scores on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    OutputStrideOption,
    ScalesOption,
    StdOption,
    WorkspaceOption,
    describe,
    parse_choice,
    parse_size,
    parse_strategy,
)
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace

if TYPE_CHECKING:
    from dlv3deploy.core.datasets import Sample, Split
    from dlv3deploy.core.metrics import SegmentationScores
    from dlv3deploy.core.spec import ModelSpec

SPLITS: dict[str, tuple[Split, ...]] = {
    "train": ("train",),
    "val": ("val",),
    "trainval": ("trainval",),
    "test": ("test",),
    "all": ("train", "val"),
}


def evaluate(
    model: ModelArgument = None,
    workspace: WorkspaceOption = DEFAULT_ROOT,
    data: Annotated[
        Path | None, typer.Option(help="Folder of a data set, or its name below $DLV3DEPLOY_DATA; default: the model's own.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, trainval, test or all; default: val, or all of a foreign set without val/.")
    ] = None,
    size: Annotated[str | None, typer.Option(help=f"Input {SIZE} for a model of dynamic size.")] = None,
    output_stride: OutputStrideOption = None,
    scales: ScalesOption = None,
    flip: FlipOption = False,
    limit: Annotated[int | None, typer.Option(help="Score this many images, spread evenly.", min=1)] = None,
    json_output: JsonOption = False,
    classes: ClassesOption = None,
    ignore_index: IgnoreIndexOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    output: OutputOption = None,
) -> None:
    """Score a checkpoint, an ONNX file or an engine: mIoU, per-class IoU, pixel accuracy."""
    from dlv3deploy.commands.models import best_artefact, open_model
    from dlv3deploy.core.segmenter import Segmenter
    from dlv3deploy.measure.evaluate import evaluate as score

    strategy = parse_strategy(scales, flip)
    asked = None if split is None else parse_choice(split, "--split", SPLITS)
    place = Workspace(workspace)
    path = model or best_artefact(place, output_stride)
    with open_model(path, describe(classes, ignore_index, mean, std, output), output_stride) as engine:
        samples = _samples(engine.spec, data, asked)
        if limit is not None and limit < len(samples):
            samples = [samples[i * len(samples) // limit] for i in range(limit)]
        segmenter = Segmenter(engine, parse_size(size) if size else None, strategy)
        scores = score(segmenter, samples)
        height, width = segmenter.input.height, segmenter.input.width
        about: dict[str, Any] = {"model": str(path), "data": str(samples[0].image.parent), "size": [height, width]}
        about |= {"output_stride": engine.spec.architecture.output_stride if engine.spec.architecture else None}
        about |= {"scales": strategy.scales, "flip": strategy.flip, "engine": engine.name}
    _print(scores, about, json_output)


def _samples(spec: ModelSpec, data: Path | None, split: str | None) -> list[Sample]:
    from dlv3deploy.core.datasets import find_root, open_dataset, own_splits, require_same_classes
    from dlv3deploy.core.errors import UserError

    trained_on = Path(spec.training.data) if spec.training else None
    root = find_root(data) if data else trained_on
    if root is None:
        raise UserError(
            "no --data", "the model does not say what it was trained on", "give --data FOLDER with images/ and labels/"
        )
    found_splits = own_splits(root)
    own = trained_on is not None and root.resolve() == trained_on
    chosen = split or ("val" if found_splits or own else "all")
    require_same_classes(root, spec.classes)
    splits = found_splits if chosen == "all" and found_splits == ("val",) else SPLITS[chosen]
    found = {sample for name in splits for sample in open_dataset(root, name, spec.classes).samples}
    return sorted(found, key=lambda sample: str(sample.image))


def _print(scores: SegmentationScores, about: dict[str, Any], json_output: bool) -> None:
    import json
    from dataclasses import asdict

    if json_output:
        print(json.dumps(asdict(scores) | about, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    from dlv3deploy.core.strategy import PLAIN, Strategy

    height, width = about["size"]
    strategy = Strategy(about["scales"], about["flip"])
    title = f"{about['model']}\n{scores.images} images of {about['data']}\n{about['engine']}, input {height}×{width}"
    title += "" if strategy == PLAIN else f", {strategy}"
    table = Table("class", "IoU")
    table.columns[1].justify = "right"
    for name, iou in scores.per_class_iou.items():
        table.add_row(name, "not seen" if iou is None else f"{iou:.3f}")
    table.add_section()
    table.add_row("mean (mIoU)", f"{scores.miou:.4f}", style="bold")
    table.add_row("pixel accuracy", f"{scores.pixel_accuracy:.4f}")
    console = Console()
    console.print(title, style="italic", highlight=False, markup=False, soft_wrap=True)
    console.print(table)
