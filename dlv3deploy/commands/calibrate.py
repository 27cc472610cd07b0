"""`dlv3deploy calibrate`: from an ONNX file and images to an INT8 ONNX file with Q/DQ pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlv3deploy.commands.calibration_images import CALIBRATION_IMAGES, budget_for, calibration_pictures
from dlv3deploy.commands.calibration_report import print_facts, write_page
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
    parse_choice,
)
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace, report_path

if TYPE_CHECKING:
    from dlv3deploy.calibration.table import CalibrationTable
    from dlv3deploy.calibration.weights import WeightGrid

WEIGHTS = ("per-channel", "per-tensor")


def calibrate(
    model: Annotated[Path | None, typer.Argument(help="Float ONNX file; default: the workspace's model.onnx.")] = None,
    workspace: WorkspaceOption = DEFAULT_ROOT,
    images: Annotated[
        Path | None, typer.Option(help="Folder of calibration images; default: the model's training data.")
    ] = None,
    calibration_images: Annotated[int, typer.Option(help="How many of them to use.", min=1)] = CALIBRATION_IMAGES,
    choose: Annotated[
        str, typer.Option(help="Which of them: spread (as different as can be), even (equal distances) or random.")
    ] = "spread",
    seed: Annotated[int, typer.Option(help="Of --choose random.", min=0)] = 0,
    method: Annotated[
        str,
        typer.Option(
            help="auto, or an observer (min-max, percentile, entropy, mse) and steps: mse+valid-taps+equalise+bias+rounding."
        ),
    ] = "auto",
    keep_fp16: Annotated[
        list[str] | None,
        typer.Option(
            "--keep-fp16", help="Convolutions that stay in floating point, FP16 in TensorRT's engines; may be repeated."
        ),
    ] = None,
    all_int8: Annotated[
        bool, typer.Option("--all-int8", help="Image pooling in INT8 as well, which else stays in floating point.")
    ] = False,
    time_budget: Annotated[float | None, typer.Option(help="Seconds after which auto tries no further method.", min=0)] = None,
    budget_miou: Annotated[
        float | None,
        typer.Option(
            help="mIoU that INT8 may lose, 0.01 for one point; costly convolutions stay in floating point.", min=0, max=1
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled data that the loss is measured on; default: the model's, else its own float masks."),
    ] = None,
    weights: Annotated[str, typer.Option(help="Steps of the weights: per-channel, or per-tensor.")] = WEIGHTS[0],
    weight_bits: Annotated[
        int, typer.Option(help="Simulate weights of fewer bits, 2 to 8; the file stays INT8.", min=2, max=8)
    ] = 8,
    trt_version: Annotated[
        str, typer.Option(help="TensorRT 8 or 10 that the calibration cache for implicit INT8 is for; JetPack 6 has 10.3.0.")
    ] = "10.3.0",
    size: Annotated[str | None, typer.Option(help=f"Input {SIZE} of an ONNX file that leaves it open.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="INT8 ONNX file; default: in the workspace.")] = None,
    table: Annotated[Path | None, typer.Option(help="Calibration table (JSON); default: beside the INT8 file.")] = None,
    with_report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write what each layer costs, and what to do, beside the table.")
    ] = True,
    json_output: JsonOption = False,
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

    _check_options(method, time_budget, budget_miou, data, to, table)
    place = Workspace(workspace)
    source, grid = model or place.onnx, _grid(weights, weight_bits)
    graph = load_onnx(source)
    if model is None:
        check_export_is_current(place)
    spec = sized(spec_of(graph, describe(classes, ignore_index, mean, std, output), str(source)), size)
    pictures = calibration_pictures(spec, source, images, calibration_images, choose, seed)
    kept = tuple(keep_fp16 or ())
    budget = None if budget_miou is None else budget_for(budget_miou, spec, data, pictures)
    request = Request(source, spec, pictures, method, grid, kept, time_budget, budget, trt_version, all_int8)
    int8_path = to or place.int8_onnx(source)
    table_path = table or _table_path(place, source, to)
    made = run_calibration(request, int8_path, table_path, say, report_path(table_path) if with_report else None)
    report(made, int8_path)
    found = write_page(source, made, table_path) if with_report else None
    if json_output:
        print_facts(int8_path, made, found)
    if to is None and table is None:
        say(f"next: {place.command('build-engine', '--int8', *([] if model is None else [source]))}")
    else:
        say("engines are built from the INT8 file and the table in a workspace: leave --to and --table out for one")


def report(made: CalibrationTable, int8_path: Path) -> None:
    """What was calibrated, how, and how far the scores moved."""
    from dlv3deploy.core.progress import say

    height, width = made.key.resolution
    if made.trials:
        say("methods tried, the best last, by the divergence of their softmax from the float model's (0 is the same):")
    for trial in reversed(made.trials[:4]):
        say(f"  {trial.fidelity}: {trial.method}")
    say(f"calibrated on {made.key.images} image{'s' * (made.key.images > 1)} at {height}×{width}, {made.chosen}")
    kept = f"{len(made.kept_float)} convolution{'s' * (len(made.kept_float) != 1)} in floating point"
    say(f"INT8 model: {int8_path}, {kept}; against the float model:")
    say(f"  {made.fidelity}, on some of these images")
    if made.elsewhere is not None:
        say(f"  {made.elsewhere}, its method in its trial, on images that it had not seen")


def _check_options(
    method: str,
    time_budget: float | None,
    budget_miou: float | None,
    data: Path | None,
    to: Path | None,
    table: Path | None,
) -> None:
    from dlv3deploy.core.errors import UserError

    if time_budget is not None and method != "auto":
        raise UserError(f"--time-budget with --method {method}", "auto alone has methods to try", "leave one of them out")
    if data is not None and budget_miou is None:
        raise UserError(f"--data {data}", "labels say whether a budget is met, and none is given", "add --budget-miou 0.01")
    if to is not None and to.suffix != ".onnx" and not to.is_dir():
        raise UserError(f"--to {to}", "is no name of an ONNX file", "end it in .onnx")
    if table is not None and table.suffix != ".json" and not table.is_dir():
        raise UserError(f"--table {table}", "is no name of a JSON file", "end it in .json")


def _grid(weights: str, bits: int) -> WeightGrid:
    from dlv3deploy.calibration.weights import WeightGrid

    return WeightGrid(bits, parse_choice(weights, "--weights", WEIGHTS) == "per-tensor")


def _table_path(place: Workspace, source: Path, to: Path | None) -> Path:
    return place.calibration(source) if to is None else to.with_suffix(".calibration.json")
