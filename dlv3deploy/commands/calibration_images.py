"""Which images INT8 is calibrated on, and which ones say what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlv3deploy.calibration.calibrate import Budget
    from dlv3deploy.calibration.choose import Chosen
    from dlv3deploy.core.spec import ModelSpec

CALIBRATION_IMAGES = 100
SIZED_IMAGES = 5
IMAGES = "images"  # in our own form of data sets and in many others, beside the labels
FEWEST_BLANK = 10  # pictures, from which on they are no accident
BUDGET_IMAGES = 100  # labelled ones, at equal distances
REMEDY = "give --images FOLDER with pictures such as the camera will see"


def calibration_pictures(
    spec: ModelSpec, source: Path, folder: Path | None, count: int, rule: str = "spread", seed: int = 0
) -> list[Path]:
    """The images that INT8 is calibrated on: of `folder`, or the training images of the model. Raises UserError.

    What was left out is said: blank frames, pictures that repeat others, and those beyond what is looked at.
    """
    from typing import get_args

    from dlv3deploy.calibration.choose import Rule, choose
    from dlv3deploy.commands.options import parse_choice
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.progress import say

    wanted: Rule = parse_choice(rule, "--choose", get_args(Rule))
    candidates = _candidates(spec, source, folder)
    chosen = choose(candidates, count, wanted, seed)
    examined = len(candidates) - chosen.not_examined
    if folder is not None and len(chosen.blank) > max(FEWEST_BLANK, examined // 2):
        beside = folder.with_name(IMAGES)
        raise UserError(
            f"--images {folder}",
            f"{len(chosen.blank)} of its pictures are blank, as maps of class ids look",
            f"did you mean {beside}?" if beside != folder and beside.is_dir() else REMEDY,
        )
    if left_out := _left_out(chosen):
        say(f"calibration images: {len(chosen.images)} chosen; left out {left_out}")
    if len(chosen.images) == 1:
        say("one calibration image: its ranges are all that INT8 will know; give a hundred that differ")
    _say_if_small(list(chosen.images), spec)
    return list(chosen.images)


def _say_if_small(images: list[Path], spec: ModelSpec) -> None:
    """Of a few of them: enlarged pictures are smooth, and show the network other values than a camera will."""
    from dlv3deploy.calibration.pictures import spread
    from dlv3deploy.core.images import read_frame
    from dlv3deploy.core.progress import say

    height, width = spec.input.height, spec.input.width
    sizes = [read_frame(path).shape[:2] for path in spread(images, SIZED_IMAGES)]
    small = [(h, w) for h, w in sizes if 2 * h <= height and 2 * w <= width]
    if len(small) * 2 > len(sizes):
        found = f"{small[0][0]}×{small[0][1]}"
        say(f"calibration images such as {found} are much smaller than the network's {height}×{width}; {REMEDY}")


def _candidates(spec: ModelSpec, source: Path, folder: Path | None) -> list[Path]:
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.images import folder_of_images, list_images

    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"--images {folder}", "is no folder", REMEDY)
        if not (pictures := list_images(folder)):
            inner = folder_of_images(folder)
            raise UserError(f"--images {folder}", "holds no picture", f"did you mean {inner}?" if inner else REMEDY)
        return pictures
    from dlv3deploy.core.datasets import open_dataset

    if spec.training is None:
        raise UserError(f"calibrating {source}", "its training data is not known", REMEDY)
    data = Path(spec.training.data)
    if not data.is_dir():
        raise UserError(f"the training data {data}", "is not on this machine", REMEDY)
    return [sample.image for sample in open_dataset(data, "train", spec.classes).samples]


def _left_out(chosen: Chosen) -> str:
    counts = {
        "blank": len(chosen.blank),
        "repeating another": len(chosen.duplicates),
        "beyond those looked at": chosen.not_examined,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def budget_for(miou: float, spec: ModelSpec, data: Path | None, pictures: list[Path]) -> Budget:
    """What may be lost, measured on labelled images where there are some, else against the float model's masks."""
    from dlv3deploy.calibration.calibrate import Budget
    from dlv3deploy.calibration.pictures import images_hash, spread
    from dlv3deploy.core.datasets import find_root, open_dataset
    from dlv3deploy.core.progress import say
    from dlv3deploy.measure.drop import labelled_drop, unlabelled_drop

    known = Path(spec.training.data) if spec.training else None
    folder = find_root(data) if data else known
    if folder is None or not folder.is_dir():
        images = spread(pictures, BUDGET_IMAGES)
        say(
            f"no labelled data: the loss is measured against the float model's own masks of {len(images)} image"
            f"{'s' * (len(images) > 1)} that it is calibrated on, where a rare class weighs as much as any; --data gives labels"
        )
        return Budget(miou, "its own masks", lambda model: unlabelled_drop(model, spec, images))
    samples = spread(open_dataset(folder, "val", spec.classes).samples, BUDGET_IMAGES)
    say(f"the loss is measured against the labels of {len(samples)} image{'s' * (len(samples) > 1)} of {folder}")
    judges = images_hash([path for sample in samples for path in (sample.image, sample.label)])
    return Budget(miou, judges, lambda model: labelled_drop(model, spec, samples))
