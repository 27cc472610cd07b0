"""`dlv3deploy import-weights`: from published weights, or another program's file, to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlv3deploy.commands.options import SIZE, WorkspaceOption, parse_size, parse_std, parse_triple, parse_whole_numbers
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace


def import_weights(
    source: Annotated[
        str | None, typer.Argument(help="A file (.pth, .pt, .pth.tar, .safetensors) or a name that --list shows.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print the names of published weights and what they are.")] = False,
    workspace: WorkspaceOption = DEFAULT_ROOT,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="File to write; default: the workspace's model.safetensors, or backbones/ for a backbone."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="voc, camvid, cityscapes or a JSON file; default: by their number, VOC for 21.")
    ] = None,
    output_stride: Annotated[int | None, typer.Option(help="8, 16 or 32; default: as published.", min=1)] = None,
    aspp_rates: Annotated[str | None, typer.Option(help="Atrous rates; default: as published for the output stride.")] = None,
    size: Annotated[str | None, typer.Option(help=f"Model input {SIZE}; default: 513x513.")] = None,
    mean: Annotated[str | None, typer.Option(help="R,G,B in 8-bit pixel units; default: ImageNet's.")] = None,
    std: Annotated[str | None, typer.Option(help="R,G,B in 8-bit pixel units; default: ImageNet's.")] = None,
) -> None:
    """Make a checkpoint from torchvision's or VainF's weights, or take an ImageNet backbone to train from.

    Published weights are fetched once, checked against their sha256 and kept in ~/.cache/dlv3deploy (DLV3DEPLOY_CACHE);
    DLV3DEPLOY_WEIGHTS_URL names a mirror. Pickles are never allowed to run code.
    """
    if listed:
        _print_published()
        return
    if source is None:
        raise typer.BadParameter("give a file or a name, or --list to see the names", param_hint="SOURCE")
    from dlv3deploy.core.classes import read_classes
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.progress import say
    from dlv3deploy.train.weights.download import weights_file
    from dlv3deploy.train.weights.import_weights import Choices
    from dlv3deploy.train.weights.import_weights import import_weights as run_import

    if to is not None and to.suffix != ".safetensors":
        raise UserError(f"--to {to}", "is no checkpoint's name", "end it in .safetensors")
    choices = Choices(
        classes=read_classes(classes) if classes else None,
        output_stride=output_stride,
        aspp_rates=parse_whole_numbers(aspp_rates, "--aspp-rates", "6,12,18"),
        size=parse_size(size) if size else None,
        mean=parse_triple(mean, "--mean"),
        std=parse_std(std),
    )
    place = Workspace(workspace)
    done = run_import(weights_file(source), place, to, choices)
    say(f"wrote {done.path}: {done.what}, {done.parameters / 1e6:.1f} million parameters")
    if done.backbone:
        say(f"next: {place.command('train', 'DATA', '--backbone', done.backbone, '--backbone-weights', done.path)}")
    elif to is not None:
        say(f"next: {place.command('export', to)}")
    else:
        say(f"next: {place.command('export')}, or go on training: {place.command('train', 'DATA', '--from', done.path)}")


def _print_published() -> None:
    from itertools import groupby

    from dlv3deploy.train.weights.published import PUBLISHED

    width = max(map(len, PUBLISHED))
    for common, alike in groupby(PUBLISHED.values(), lambda published: published.common):
        print(f"{common}:")
        for published in alike:
            size, parameters = f"{published.megabytes:.1f} MB", f"{published.parameters / 1e6:.1f} M parameters"
            print(f"  {published.name:{width}}  {size:>8}  {parameters:>17}  {published.score}")
