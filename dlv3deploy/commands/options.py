"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

import typer

if TYPE_CHECKING:
    from dlv3deploy.core.classes import Classes
    from dlv3deploy.core.foreign import Description
    from dlv3deploy.core.spec import Triple
    from dlv3deploy.core.strategy import Strategy

Choice = TypeVar("Choice", bound=str)
Size = tuple[int, int]  # height, width
LARGEST_SIDE = 16384
SIZE = "HEIGHTxWIDTH (65 is 65x65)"  # how a size is written, for --help

WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="Folder through which commands hand over.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
ModelArgument = Annotated[
    Path | None, typer.Argument(help="Checkpoint, ONNX file or engine; default: the workspace's best one for this machine.")
]


def given_options(context: typer.Context) -> dict[str, str]:
    """What stands on the command line: the parameters' names, and the options as they are spelt there (`flip`: `--no-flip`)."""
    found = {}
    for option in context.command.params:
        source = context.get_parameter_source(option.name) if option.name and option.param_type_name == "option" else None
        if option.name and source is not None and source.name == "COMMANDLINE":
            turned_off = context.params.get(option.name) is False and option.secondary_opts
            found[option.name] = option.secondary_opts[0] if turned_off else option.opts[0]
    return found


def parse_choice(text: str, option: str, choices: Iterable[Choice]) -> Choice:
    """The one of `choices` that an option names. Raises UserError."""
    from dlv3deploy.core.errors import UserError

    known = {str(choice): choice for choice in choices}
    if text not in known:
        raise UserError(f"{option} {text!r}", "is unknown", f"use one of {', '.join(known)}")
    return known[text]


def parse_size(text: str) -> Size:
    """`HEIGHTxWIDTH`, or one number for a square. Raises UserError."""
    from dlv3deploy.core.errors import UserError

    parts = text.lower().replace("×", "x").split("x")
    try:
        height, width = (int(p) for p in (parts if len(parts) == 2 else parts * 2))
    except ValueError:
        height = width = 0
    if not 1 <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise UserError(
            f"size {text!r}", f"is no HEIGHTxWIDTH of 1 to {LARGEST_SIDE} pixels", "write it as 353x481, or 513 for a square"
        )
    return height, width


ScalesOption = Annotated[
    str | None,
    typer.Option("--scales", help="Average over the picture at these scales: 0.5,1,1.5, or `paper` for 0.5 to 1.75 in six."),
]
FlipOption = Annotated[bool, typer.Option("--flip", help="Average over the picture and its mirror image.")]


def parse_strategy(scales: str | None, flip: bool) -> Strategy:
    """How `--scales` and `--flip` look at a frame; without them once, as it is. Raises UserError."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.strategy import PAPER_SCALES, PLAIN, Strategy

    if scales is None:
        return Strategy(PLAIN.scales, flip)
    if scales.strip() == "paper":
        return Strategy(PAPER_SCALES, flip)
    try:
        numbers = tuple(float(part) for part in scales.split(","))
    except ValueError:
        raise UserError(f"--scales {scales!r}", "is not numbers with commas between them", "write 0.5,1,1.5 or paper") from None
    return Strategy(numbers, flip)


def parse_pair(text: str, option: str) -> tuple[float, float]:
    from dlv3deploy.core.errors import UserError

    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{option} {text!r}", "is not two numbers", "write it as 0.5,2.0") from None
    return low, high


def numbers(values: Iterable[float]) -> str:
    """As options take them, `127.5,127.5,127.5`."""
    return ",".join(f"{value:g}" for value in values)


def parse_triple(text: str | None, option: str) -> Triple | None:
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.spec import triple

    if text is None:
        return None
    try:
        values = triple(text)
    except ValueError:
        raise UserError(f"{option} {text!r}", "is not three numbers", "write it as 123.7,116.3,103.5 (0 to 255)") from None
    if any(0 < abs(value) < 1 for value in values):
        in_pixels = numbers(255 * value for value in values)
        raise UserError(f"{option} {text}", "is in units of 0 to 1, pixels are 0 to 255 here", f"write {option} {in_pixels}")
    return values


def parse_std(text: str | None) -> Triple | None:
    from dlv3deploy.core.errors import UserError

    values = parse_triple(text, "--std")
    if values is not None and min(values) <= 0:
        raise UserError(f"--std {text}", "pixels are divided by it", "give three numbers above 0")
    return values


def parse_whole_numbers(text: str | None, option: str, example: str) -> tuple[int, ...] | None:
    """Numbers of 1 or more between commas, as atrous rates are. Raises UserError."""
    from dlv3deploy.core.errors import UserError

    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise UserError(f"{option} {text}", "is no list of whole numbers of 1 or more", f"write it as {example}")
    return numbers


def resolve_classes(data: Path, known: str | None, names: str | None, palette: str | None, ignore_index: int | None) -> Classes:
    """The classes of a data set: as the options say, else its classes.json. Raises UserError."""
    from dlv3deploy.core.classes import Classes, read_classes
    from dlv3deploy.core.datasets import dataset_classes
    from dlv3deploy.core.errors import UserError

    if palette and not names:
        raise UserError("--palette", "colours the names of --class-names", "give both, or put the palette into a classes.json")
    if known and names:
        raise UserError("--classes and --class-names", "exclude each other", "give one of them")
    if names:
        described: dict[str, object] = {"names": [name.strip() for name in names.split(",")]}
        if palette:
            described["palette"] = [colour.split(":") for colour in palette.split(",")]
        found = Classes.from_json(described, "--class-names and --palette")
    else:
        found = read_classes(known) if known else dataset_classes(data)
    return found if ignore_index is None else replace(found, ignore_index=ignore_index)


OutputStrideOption = Annotated[
    int | None,
    typer.Option("--output-stride", help="Of a checkpoint, other than it was trained at: 8 is finer and slower.", min=1),
]
ClassesOption = Annotated[
    str | None, typer.Option("--classes", help="For a foreign ONNX: voc, camvid, cityscapes, ade20k, cocostuff or a JSON file.")
]
IgnoreIndexOption = Annotated[
    int | None, typer.Option("--ignore-index", help="For a foreign ONNX: the label id that does not count.")
]
MeanOption = Annotated[str | None, typer.Option("--mean", help="For a foreign ONNX: R,G,B in 8-bit pixel units.")]
StdOption = Annotated[str | None, typer.Option("--std", help="For a foreign ONNX: R,G,B in 8-bit pixel units.")]
OutputOption = Annotated[str | None, typer.Option("--output", help="For a foreign ONNX: scores, logits or mask.")]


def describe(
    classes: str | None, ignore_index: int | None, mean: str | None, std: str | None, output: str | None
) -> Description:
    """What the options say of a model that does not describe itself. Raises UserError for texts that cannot be read."""
    from dlv3deploy.core.classes import read_classes
    from dlv3deploy.core.foreign import Description
    from dlv3deploy.core.spec import OutputKind

    return Description(
        classes=read_classes(classes) if classes else None,
        ignore_index=ignore_index,
        mean=parse_triple(mean, "--mean"),
        std=parse_std(std),
        output=None if output is None else parse_choice(output, "--output", get_args(OutputKind)),
    )
