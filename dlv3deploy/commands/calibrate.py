"""`dlv3deploy calibrate`: from an ONNX file and images to an INT8 ONNX file with Q/DQ pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlv3deploy.commands.options import (
    ClassesOption,
    IgnoreIndexOption,
    MeanOption,
    OutputOption,
    StdOption,
    WorkspaceOption,
    describe,
)
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace

if TYPE_CHECKING:
    from dlv3deploy.calibration.calibrate import Referee
    from dlv3deploy.calibration.table import CalibrationTable
    from dlv3deploy.calibration.weights import WeightGrid
    from dlv3deploy.core.spec import ModelSpec

CALIBRATION_IMAGES = 100
BUDGET_IMAGES = 100  # labelled ones, spread evenly
WEIGHTS = ("per-channel", "per-tensor")
REMEDY = "give --images FOLDER with pictures such as the camera will see"


def calibrate(
    model: Annotated[Path | None, typer.Argument(help="Float ONNX file; default: the workspace's model.onnx.")] = None,
    workspace: WorkspaceOption = DEFAULT_ROOT,
    images: Annotated[
        Path | None, typer.Option(help="Folder of calibration images; default: the model's training data.")
    ] = None,
    calibration_images: Annotated[int, typer.Option(help="How many of them to use.", min=1)] = CALIBRATION_IMAGES,
    method: Annotated[
        str,
        typer.Option(
            help="auto, or an observer (min-max, percentile, entropy, mse) and steps: mse+valid-taps+equalise+bias+rounding."
        ),
    ] = "auto",
    keep_fp16: Annotated[
        list[str] | None,
        typer.Option("--keep-fp16", help="Convolutions that stay in floating point, a name or a pattern; may be repeated."),
    ] = None,
    time_budget: Annotated[float | None, typer.Option(help="Seconds after which auto tries no further method.", min=0)] = None,
    budget_miou: Annotated[
        float | None,
        typer.Option(help="mIoU that INT8 may lose, 0.01 for one point; costly convolutions stay in floating point.", min=0),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled data that the loss is measured on; default: the model's, else its own float masks."),
    ] = None,
    weights: Annotated[str, typer.Option(help="Steps of the weights: per-channel, or per-tensor.")] = WEIGHTS[0],
    weight_bits: Annotated[
        int, typer.Option(help="Simulate weights of fewer bits, 2 to 8; the file stays INT8.", min=2, max=8)
    ] = 8,
    size: Annotated[str | None, typer.Option(help="Input HEIGHTxWIDTH of an ONNX file that leaves it open.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="INT8 ONNX file; default: in the workspace.")] = None,
    table: Annotated[Path | None, typer.Option(help="Calibration table (JSON); default: beside the INT8 file.")] = None,
    classes: ClassesOption = None,
    ignore_index: IgnoreIndexOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    output: OutputOption = None,
) -> None:
    """Make an INT8 model that keeps the float model's accuracy, in the form that TensorRT and ONNX Runtime read."""
    from dlv3deploy.calibration.calibrate import Request
    from dlv3deploy.calibration.calibrate import calibrate as run_calibration
    from dlv3deploy.commands.models import check_export_is_current, sized
    from dlv3deploy.core.foreign import spec_of
    from dlv3deploy.core.graph import load_onnx
    from dlv3deploy.core.progress import say

    place = Workspace(workspace)
    source, grid = model or place.onnx, _grid(weights, weight_bits)
    graph = load_onnx(source)
    if model is None:
        check_export_is_current(place)
    spec = sized(spec_of(graph, describe(classes, ignore_index, mean, std, output), str(source)), size)
    pictures = calibration_pictures(spec, source, images, calibration_images)
    request = Request(source, spec, pictures, method, grid, tuple(keep_fp16 or ()), time_budget, budget_miou)
    int8_path = to or place.int8_onnx(source)
    referee = None if budget_miou is None else _referee(spec, data, pictures)
    made = run_calibration(request, int8_path, table or _table_path(place, source, to), say, referee)
    report(made, int8_path)
    say(f"next: dlv3deploy build-engine --int8 {'' if model is None else source}".rstrip())


def _referee(spec: ModelSpec, data: Path | None, pictures: list[Path]) -> Referee:
    """Measures the mIoU that a model loses: on labelled images where there are some, else against the float model's masks."""
    from dlv3deploy.calibration.calibrate import held_out
    from dlv3deploy.calibration.pictures import spread
    from dlv3deploy.core.datasets import find_root, open_dataset
    from dlv3deploy.core.progress import say
    from dlv3deploy.measure.drop import labelled_drop, unlabelled_drop

    known = Path(spec.training.data) if spec.training else None
    folder = find_root(data) if data else known
    if folder is None or not folder.is_dir():
        say("no labelled data: the loss is measured against the float model's own masks; --data gives labels")
        images = held_out(pictures)
        return lambda model: unlabelled_drop(model, spec, images)
    samples = spread(open_dataset(folder, "val", spec.classes).samples, BUDGET_IMAGES)
    return lambda model: labelled_drop(model, spec, samples)


def report(made: CalibrationTable, int8_path: Path) -> None:
    """What was calibrated, how, and how far the scores moved."""
    from dlv3deploy.core.progress import say

    height, width = made.key.resolution
    for trial in sorted(made.trials, key=lambda trial: trial.fidelity.snr_db)[-4:]:
        say(f"  {trial.fidelity}: {trial.method}")
    say(f"calibrated on {made.key.images} images at {height}×{width}, {made.chosen}")
    say(f"wrote {int8_path}; against the float model {made.fidelity}")


def calibration_pictures(spec: ModelSpec, source: Path, folder: Path | None, count: int) -> list[Path]:
    """The images that INT8 is calibrated on: of `folder`, or the training images of the model. Raises UserError."""
    from dlv3deploy.calibration.pictures import spread
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.images import list_images

    if folder is None and spec.training is None:
        raise UserError(f"--int8 for {source}", "its training data is not known", REMEDY)
    if folder is None:
        from dlv3deploy.core.datasets import open_dataset

        data = Path(spec.training.data)  # type: ignore[union-attr]  # checked above
        if not data.is_dir():
            raise UserError(f"the training data {data}", "is not on this machine", REMEDY)
        pictures = [sample.image for sample in open_dataset(data, "train", spec.classes).samples]
    else:
        if not folder.is_dir():
            raise UserError(f"--images {folder}", "is no folder", REMEDY)
        pictures = list_images(folder)
        if not pictures:
            raise UserError(f"--images {folder}", "holds no picture", REMEDY)
    return spread(pictures, count)


def _grid(weights: str, bits: int) -> WeightGrid:
    from dlv3deploy.calibration.weights import WeightGrid
    from dlv3deploy.core.errors import UserError

    if weights not in WEIGHTS:
        raise UserError(f"--weights {weights}", "is unknown", f"use {' or '.join(WEIGHTS)}")
    return WeightGrid(bits, weights == "per-tensor")


def _table_path(place: Workspace, source: Path, to: Path | None) -> Path:
    return place.calibration(source) if to is None else to.with_suffix(".calibration.json")
