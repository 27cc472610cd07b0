"""`dlv3deploy train`: from a data set to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlv3deploy.commands.options import Size, WorkspaceOption, parse_pair, parse_size, parse_triple, resolve_classes
from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from dlv3deploy.core.classes import Classes


def train(
    data: Annotated[Path, typer.Argument(help="Folder of a data set, or its name below $DLV3DEPLOY_DATA.")],
    workspace: WorkspaceOption = Path("artifacts"),
    backbone: Annotated[str, typer.Option(help="resnet18, resnet34, resnet50, resnet101 or mobilenet_v2.")] = "mobilenet_v2",
    backbone_weights: Annotated[
        Path | None, typer.Option(help="State dict with torchvision's names, to start from (.safetensors, .pth).")
    ] = None,
    output_stride: Annotated[int, typer.Option(help="8, 16 or 32.")] = 16,
    aspp_rates: Annotated[str | None, typer.Option(help="Atrous rates; default: the paper's, 6,12,18 at stride 16.")] = None,
    aspp_channels: Annotated[int, typer.Option(help="Channels of every ASPP branch.", min=1)] = 256,
    auxiliary: Annotated[bool, typer.Option("--auxiliary", help="Train torchvision's auxiliary head as well.")] = False,
    classes: Annotated[
        str | None, typer.Option(help="voc, camvid, cityscapes, ade20k, cocostuff or a JSON file; default: the data set's own.")
    ] = None,
    class_names: Annotated[str | None, typer.Option(help="Names instead of --classes: road,car,…")] = None,
    palette: Annotated[str | None, typer.Option(help="Colours for --class-names: 128:64:128,0:0:142,…")] = None,
    ignore_index: Annotated[int | None, typer.Option(help="Label id that does not count.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Model input HEIGHTxWIDTH; default: the first image's, fitted to the stride.")
    ] = None,
    crop: Annotated[str | None, typer.Option(help="Training crop HEIGHTxWIDTH; default: the input size, 513 at most.")] = None,
    scale: Annotated[str, typer.Option(help="Range of the random resizing.")] = "0.5,2.0",
    flip: Annotated[bool, typer.Option(help="Mirror half of the images left to right.")] = True,
    steps: Annotated[int, typer.Option(help="Updates of the weights.", min=1)] = 3000,
    batch_size: Annotated[int, typer.Option(help="Images in one update.")] = 8,
    optimiser: Annotated[str, typer.Option("--optimiser", "--optimizer", help="adamw, or sgd as in the paper.")] = "adamw",
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="Default: by optimiser and batch size.")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="On convolution weights only.", min=0)] = 1e-4,
    validate_every: Annotated[int, typer.Option(help="Steps between validations.", min=1)] = 500,
    mean: Annotated[str | None, typer.Option(help="R,G,B in 8-bit pixel units; default: ImageNet's.")] = None,
    std: Annotated[str | None, typer.Option(help="R,G,B in 8-bit pixel units; default: ImageNet's.")] = None,
    precision: Annotated[str, typer.Option(help="auto, 32-true, bf16-mixed or 16-mixed.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that read images; 0 reads in the main one.", min=0)] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same weights (on a CPU).", min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that stopped in this workspace.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin again although an unfinished run lies here.")] = False,
) -> None:
    """Train or fine-tune DeepLabv3 on a data set; the best checkpoint becomes the workspace's model."""
    from dlv3deploy.core.datasets import find_root
    from dlv3deploy.core.progress import say
    from dlv3deploy.core.spec import IMAGENET_MEAN, IMAGENET_STD, Architecture, InputSpec, check_size
    from dlv3deploy.train.atrous import check_output_stride
    from dlv3deploy.train.deeplabv3 import PAPER_RATES
    from dlv3deploy.train.loop import check_fits
    from dlv3deploy.train.loop import train as run_training
    from dlv3deploy.train.plan import TrainingPlan

    data = find_root(data)
    check_output_stride(output_stride)
    known = resolve_classes(data, classes, class_names, palette, ignore_index)
    input_size = parse_size(size) if size else _size_of_first_image(data, output_stride, known)
    check_size(*input_size, output_stride)
    options: dict[str, Any] = {"optimiser": optimiser}
    plan = TrainingPlan(
        data=data,
        classes=known,
        architecture=Architecture(
            backbone, output_stride, _rates(aspp_rates) or PAPER_RATES[output_stride], aspp_channels, auxiliary
        ),
        input=InputSpec(
            *input_size, mean=parse_triple(mean, "--mean") or IMAGENET_MEAN, std=parse_triple(std, "--std") or IMAGENET_STD
        ),
        crop=parse_size(crop) if crop else _crop_for(input_size, output_stride),
        scale=parse_pair(scale, "--scale"),
        flip=flip,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        validate_every=validate_every,
        seed=seed,
        workers=workers,
        precision=precision,
        backbone_weights=backbone_weights,
        **options,
    )
    place = Workspace(workspace)
    check_fits(plan, place.training, resume, restart)
    result = run_training(plan, place.checkpoint, place.training, resume)
    say(
        f"best validation mIoU {result.miou:.4f}, pixel accuracy {result.pixel_accuracy:.4f} "
        f"after {result.steps} steps in {result.seconds / 60:.1f} min"
    )
    say(f"wrote {result.checkpoint}; next: dlv3deploy export")


LARGEST_CROP = 513  # the paper's, section 4.1


def _size_of_first_image(data: Path, output_stride: int, classes: Classes) -> Size:
    """The first validation image's size, each side rounded to the nearest multiple of the output stride, the larger of two."""
    from dlv3deploy.core.datasets import open_dataset

    frame, _ = open_dataset(data, "val", classes).samples[0].read()
    height, width = (max(1, (2 * side // output_stride + 1) // 2) * output_stride for side in frame.shape[:2])
    return height, width


def _crop_for(size: Size, output_stride: int) -> Size:
    height, width = (side if side <= LARGEST_CROP else LARGEST_CROP // output_stride * output_stride + 1 for side in size)
    return height, width


def _rates(text: str | None) -> tuple[int, ...] | None:
    from dlv3deploy.core.errors import UserError

    if text is None:
        return None
    try:
        rates = tuple(int(part) for part in text.split(","))
    except ValueError:
        rates = ()
    if not rates or min(rates) < 1:
        raise UserError(f"--aspp-rates {text}", "are whole numbers of 1 or more", "the paper's are 6,12,18")
    return rates
