"""`dlv3deploy train`: from a data set to a checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from dlv3deploy.commands.options import SIZE, WorkspaceOption, given_options, parse_choice, parse_pair, resolve_classes
from dlv3deploy.commands.train_input import parse_input
from dlv3deploy.commands.train_network import DEFAULT_STRIDE, parse_aspp_rates, parse_multi_grid
from dlv3deploy.commands.train_quantized import train_quantized
from dlv3deploy.commands.train_together import check_effect, check_together
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace

if TYPE_CHECKING:
    from dlv3deploy.core.datasets import Split

TRAINING_SPLITS: tuple[Split, ...] = ("train", "trainval")


def _panel(name: str) -> Callable[..., Any]:
    """An option that `--help` lists under `name`."""
    return functools.partial(typer.Option, rich_help_panel=name)


_network, _start, _data = _panel("Network"), _panel("Where it starts"), _panel("Data")
_schedule, _loss, _norm, _machine = _panel("Schedule"), _panel("Loss"), _panel("Batch norm"), _panel("Machine")


def train(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="Folder of a data set, or its name below $DLV3DEPLOY_DATA.")],
    workspace: WorkspaceOption = DEFAULT_ROOT,
    backbone: Annotated[
        str, _network(help="resnet18, resnet34, resnet50, resnet101, mobilenet_v2 or mobilenet_v3_large.")
    ] = "mobilenet_v2",
    width: Annotated[float, _network(help="Multiplies the backbone's channels (not MobileNetV3's).")] = 1.0,
    head: Annotated[str, _network(help="aspp, cascade (paper, section 3.2), deeplabv2 or lraspp (MobileNetV3's).")] = "aspp",
    output_stride: Annotated[
        int | None, _network(help="8, 16 or 32, up to 256 with --blocks 7; default: 16, or that of --from.")
    ] = None,
    blocks: Annotated[int, _network(help="Last ResNet block, 4 to 7; those after 4 are replicas of it.")] = 4,
    multi_grid: Annotated[
        str | None, _network(help="Unit rates of blocks 4 to 7, such as 1,2,4; default: torchvision's rule.")
    ] = None,
    aspp_rates: Annotated[
        str | None, _network(help="Atrous rates, or none; default: the paper's, 6,12,18 at stride 16.")
    ] = None,
    aspp_channels: Annotated[int, _network(help="Channels of every ASPP branch.", min=1)] = 256,
    aspp_batch_norm: Annotated[bool, _network(help="Batch norm in ASPP; without it convolutions have biases.")] = True,
    image_pooling: Annotated[bool, _network(help="ASPP's branch of image-level features.")] = True,
    final_convolution: Annotated[bool, _network(help="torchvision's 3×3 convolution behind ASPP; the paper has none.")] = True,
    decoder: Annotated[bool, _network("--decoder", help="DeepLabv3+'s decoder.")] = False,
    auxiliary: Annotated[bool, _network("--auxiliary", help="Train torchvision's auxiliary head as well.")] = False,
    backbone_weights: Annotated[
        str | None, _start(help="State dict to start from (.safetensors, .pth), or a name of import-weights --list.")
    ] = None,
    start_from: Annotated[
        Path | None,
        _start("--from", help="Checkpoint to go on from: its network, at this or another output stride."),
    ] = None,
    quantize: Annotated[
        bool,
        _start("--quantize", help="Fine-tune the workspace's INT8 file, or that of --from FILE.onnx, in a few hundred steps."),
    ] = False,
    resume: Annotated[bool, _start("--resume", help="Go on with the run that stopped in this workspace.")] = False,
    restart: Annotated[bool, _start("--restart", help="Begin again although an unfinished run lies here.")] = False,
    classes: Annotated[
        str | None, _data(help="voc, camvid, cityscapes, ade20k, cocostuff or a JSON file; default: the data set's own.")
    ] = None,
    split: Annotated[str, _data(help="What is trained on: train, or trainval where nothing need be held out.")] = "train",
    class_names: Annotated[str | None, _data(help="Names instead of --classes: road,car,…")] = None,
    palette: Annotated[str | None, _data(help="Colours for --class-names: 128:64:128,0:0:142,…")] = None,
    ignore_index: Annotated[int | None, _data(help="Label id that does not count.")] = None,
    size: Annotated[
        str | None,
        _data(help=f"Model input {SIZE}; default: as the pictures, each side the nearest k · output stride + 1."),
    ] = None,
    resize: Annotated[
        str | None, _data(help="How pictures fit the input: stretch, or letterbox, the default where their sizes differ.")
    ] = None,
    mean: Annotated[str | None, _data(help="R,G,B in 8-bit pixel units; default: ImageNet's, or those of --from.")] = None,
    std: Annotated[str | None, _data(help="R,G,B in 8-bit pixel units; default: ImageNet's, or those of --from.")] = None,
    crop: Annotated[str | None, _data(help=f"Training crop {SIZE}; default: the input, 513 at most.")] = None,
    scale: Annotated[str, _data(help="Range of the random resizing.")] = "0.5,2.0",
    flip: Annotated[bool, _data(help="Mirror half of the images left to right.")] = True,
    repeat_classes: Annotated[str | None, _data(help="Classes whose images count several times: bicycle,chair,…")] = None,
    repeats: Annotated[int, _data(help="How many times.", min=1)] = 2,
    steps: Annotated[int, _schedule(help="Updates of the weights.", min=1)] = 3000,
    batch_size: Annotated[int, _schedule(help="Images in one update, over all processes and passes.")] = 8,
    accumulate: Annotated[int, _schedule(help="Passes over which each process spreads its batch.", min=1)] = 1,
    optimiser: Annotated[str, _schedule("--optimiser", "--optimizer", help="adamw, or sgd as in the paper.")] = "adamw",
    learning_rate: Annotated[
        float | None, _schedule("--learning-rate", "--lr", help="Default: by optimiser and batch size.")
    ] = None,
    weight_decay: Annotated[float, _schedule(help="On convolution weights only.", min=0)] = 1e-4,
    poly_power: Annotated[float, _schedule(help="The rate falls as (1 − step/steps)^power.", min=0)] = 0.9,
    validate_every: Annotated[int, _schedule(help="Steps between validations.", min=1)] = 500,
    ema: Annotated[
        float | None, _schedule(help="Decay of a moving average of the weights, which is then what is kept: 0.999.")
    ] = None,
    dropout: Annotated[float, _schedule(help="Behind ASPP's projection.")] = 0.5,
    label_smoothing: Annotated[float, _loss(help="Share of each label spread over all classes.")] = 0.0,
    ohem: Annotated[float | None, _loss(help="Learn only from pixels whose class has a probability below this: 0.7.")] = None,
    dice: Annotated[float, _loss(help="Weight of the soft Dice loss, added to the cross entropy.")] = 0.0,
    class_weights: Annotated[bool, _loss("--class-weights", help="Weigh classes by median frequency.")] = False,
    frozen_batch_norm: Annotated[
        bool, _norm("--freeze-batch-norm", help="Leave batch norm as it is (the paper's second phase).")
    ] = False,
    batch_norm_momentum: Annotated[
        float | None, _norm(help="Of the running statistics; default: the network's. The paper's is 0.0003.")
    ] = None,
    sync_batch_norm: Annotated[bool, _norm("--sync-batch-norm", help="Statistics over all GPUs.")] = False,
    precision: Annotated[str, _machine(help="auto, 32-true, bf16-mixed or 16-mixed.")] = "auto",
    compiled: Annotated[bool, _machine("--compile", help="Compile the network with torch.compile.")] = False,
    workers: Annotated[int, _machine(help="Processes that read images; 0 reads in the main one.", min=0)] = 1,
    seed: Annotated[int, _machine(help="Same seed, same weights (on a CPU).", min=0)] = 0,
) -> None:
    """Train or fine-tune DeepLabv3 on a data set; the best checkpoint becomes the workspace's model.

    On several GPUs or machines: torchrun --nproc-per-node N -m dlv3deploy train DATA …
    """
    from dlv3deploy.core.datasets import find_root
    from dlv3deploy.core.progress import say, spent
    from dlv3deploy.core.spec import Architecture, HeadKind
    from dlv3deploy.train.beginning import check_folder, start_architecture
    from dlv3deploy.train.loss_choice import LossChoice
    from dlv3deploy.train.plan import TrainingPlan
    from dlv3deploy.train.settings import Optimiser, Precision, Settings
    from dlv3deploy.train.weights.download import require_weights, weights_file

    if quantize:
        train_quantized(given_options(context), context.params)
        return

    # Options first, then the data, then torch: what is wrong is said before anything is opened that takes seconds.
    given, place = given_options(context), Workspace(workspace)
    check_together(given)
    begun = None
    if start_from is not None:
        architecture, begun = start_architecture(start_from, output_stride, auxiliary)
    else:
        stride = DEFAULT_STRIDE if output_stride is None else output_stride
        architecture = Architecture(
            backbone,
            stride,
            parse_aspp_rates(aspp_rates, stride),
            aspp_channels,
            auxiliary,
            head=parse_choice(head, "--head", get_args(HeadKind)),
            width=width,
            blocks=blocks,
            multi_grid=parse_multi_grid(multi_grid),
            image_pooling=image_pooling,
            aspp_batch_norm=aspp_batch_norm,
            final_convolution=final_convolution,
            decoder=decoder,
        )
    check_effect(given, architecture)
    settings = Settings(
        architecture=architecture,
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        scale=parse_pair(scale, "--scale"),
        flip=flip,
        split=parse_choice(split, "--split", TRAINING_SPLITS),
        repeats=repeats,
        loss=LossChoice(label_smoothing, ohem, dice, class_weights),
        optimiser=parse_choice(optimiser, "--optimiser", get_args(Optimiser)),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        poly_power=poly_power,
        dropout=dropout,
        frozen_batch_norm=frozen_batch_norm,
        sync_batch_norm=sync_batch_norm,
        batch_norm_momentum=batch_norm_momentum,
        ema_decay=ema,
        validate_every=validate_every,
        seed=seed,
        workers=workers,
        precision=parse_choice(precision, "--precision", get_args(Precision)),
        compiled=compiled,
    )
    pictures = parse_input(size, crop, resize, mean, std, architecture.output_stride)
    begins_with = backbone_weights if backbone_weights and not resume else None
    if begins_with:
        require_weights(begins_with)

    check_folder(place.training, resume, restart)
    data = find_root(data)
    known = resolve_classes(data, classes, class_names, palette, ignore_index)
    frame, crop_size = pictures.fitted(data, known, architecture.output_stride, begun.input if begun else None)
    plan = TrainingPlan(
        **vars(settings),
        data=data,
        classes=known,
        input=frame,
        crop=crop_size,
        repeat_classes=tuple(name.strip() for name in repeat_classes.split(",")) if repeat_classes else (),
        backbone_weights=weights_file(begins_with) if begins_with else None,
        start_from=start_from,
    )

    from dlv3deploy.train.loop import train as run_training

    result = run_training(plan, place.checkpoint, place.training, resume)
    say(
        f"best validation mIoU {result.miou:.4f}, pixel accuracy {result.pixel_accuracy:.4f} "
        f"after {result.steps} steps in {spent(result.seconds)}"
    )
    say(f"wrote {result.checkpoint}; next: {place.command('export')}")
