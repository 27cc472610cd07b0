"""`dlv3deploy export`: from a checkpoint to a self-describing ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from dlv3deploy.commands.options import SIZE, OutputStrideOption, WorkspaceOption, parse_choice, parse_size
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace, by_training


def export(
    checkpoint: Annotated[Path | None, typer.Argument(help="Default: the workspace's model.safetensors.")] = None,
    workspace: WorkspaceOption = DEFAULT_ROOT,
    to: Annotated[Path | None, typer.Option("--to", help="ONNX file to write; default: the workspace's model.onnx.")] = None,
    output: Annotated[
        str, typer.Option(help="scores (feature resolution), logits (input resolution) or mask (class ids).")
    ] = "scores",
    size: Annotated[str | None, typer.Option(help=f"Input {SIZE}; default: the checkpoint's.")] = None,
    output_stride: OutputStrideOption = None,
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Leave height and width open.")] = False,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Leave the batch open.")] = False,
    opset: Annotated[int, typer.Option(help="ONNX opset, 11 to 20; 17 suits every backend.")] = 17,
) -> None:
    """Export a checkpoint to ONNX and check the result against PyTorch."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.files import require_file
    from dlv3deploy.core.progress import say
    from dlv3deploy.core.spec import OutputKind

    place = Workspace(workspace)
    kind, input_size = parse_choice(output, "--output", get_args(OutputKind)), parse_size(size) if size else None
    source, target = checkpoint or place.checkpoint, to or place.onnx
    if target.suffix != ".onnx":
        raise UserError(f"--to {target}", "is no ONNX file's name", "end it in .onnx")
    if source.suffix == ".onnx":
        then = place.command("build-engine", source)
        raise UserError(str(source), "is an ONNX file already", f"build an engine from it: {then}")
    require_file(source, by_training(source))

    from dlv3deploy.train.export import ExportChoices  # torch comes with it
    from dlv3deploy.train.export import export as run_export

    choices = ExportChoices(kind, input_size, dynamic_size, dynamic_batch, opset, output_stride)
    spec, parity = run_export(source, target, choices)
    stride = f"output stride {spec.architecture.output_stride}, " if spec.architecture else ""
    say(
        f"wrote {target}: {spec.input.height}×{spec.input.width}{' (may change)' if dynamic_size else ''} to {output}, "
        f"{stride}opset {opset}; differs from PyTorch by "
        f"{parity.difference:.1e} ({parity.tolerance:.0e} allowed, {parity.runtime})"
    )
    given = () if to is None else (to,)
    say(f"next: {place.command('build-engine', *given)}, or for INT8: {place.command('calibrate', *given)}")
