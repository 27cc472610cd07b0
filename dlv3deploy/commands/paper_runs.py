"""`dlv3deploy paper tableN --run`: a recipe of the paper trained and evaluated, stage after stage, and its figure kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.commands.options import numbers
from dlv3deploy.core.paper.recipe import Inference, Recipe, Stage, training_name
from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from dlv3deploy.core.datasets import Sample
    from dlv3deploy.train.plan import TrainingPlan

VALIDATIONS = 10  # in the course of a stage


@dataclass(frozen=True)
class Machine:
    """What a run may change about how it is computed: see `train`.

    Over several passes batch norm sees fewer images at a time than the paper's 16, which is said.
    """

    accumulate: int = 1
    compiled: bool = False
    workers: int = 4


@dataclass(frozen=True)
class Sources:
    """Where the data sets lie that the recipes name."""

    voc: Path
    coco: Path | None


def run_table(number: int, row: str | None, workspace: Path, data: Path | None, coco: Path | None, machine: Machine) -> None:
    """Train and evaluate the rows of a table that were not measured yet. Raises UserError for data that are not there."""
    from dlv3deploy.core.paper.results import read_miou
    from dlv3deploy.core.paper.tables import TABLES, find_recipe
    from dlv3deploy.core.progress import say

    place = Workspace(workspace)
    if machine.accumulate > 1:
        say(f"batch norm sees {16 // machine.accumulate} images at a time, the paper's 16")
    recipes: Sequence[Recipe] = TABLES[number].recipes if row is None else [find_recipe(TABLES[number], row)]
    sources = _sources(recipes, data, coco)
    for recipe in recipes:
        if (known := read_miou(place, recipe)) is not None:
            say(f"{recipe.name}: measured before, mIoU {known:.4f}")
            continue
        run_recipe(recipe, place, sources, machine)


def _sources(recipes: Sequence[Recipe], data: Path | None, coco: Path | None) -> Sources:
    from dlv3deploy.core.classes import VOC
    from dlv3deploy.core.datasets import open_dataset
    from dlv3deploy.core.errors import UserError

    voc = _folder(data, "voc", "--data", "PASCAL VOC 2012 with SBD")
    description = open_dataset(voc, "train", VOC).description
    if "trainaug" not in description:
        raise UserError(
            f"{voc} ({description})",
            "the paper trains on trainaug, VOC's train and SBD's images together",
            "put SBD's benchmark_RELEASE, or SegmentationClassAug with trainaug.txt, beside VOC",
        )
    needs_coco = any(stage.data == "coco-voc" for recipe in recipes for stage in recipe.stages)
    return Sources(voc, _folder(coco, "coco", "--coco", "COCO 2017") if needs_coco else None)


def _folder(given: Path | None, name: str, option: str, what: str) -> Path:
    """Where a data set lies, by default `name` as `train` finds it. Raises UserError."""
    from dlv3deploy.core.datasets import find_root
    from dlv3deploy.core.errors import UserError

    try:
        return find_root(given or name)
    except UserError as error:
        remedy = f"give the folder of {what} with {option}, or let $DLV3DEPLOY_DATA name the one that holds {name}/"
        raise UserError(error.given, error.rule, remedy) from None


def run_recipe(recipe: Recipe, place: Workspace, sources: Sources, machine: Machine) -> None:
    """Train what is not trained yet, evaluate it on VOC's validation images, and record the figure."""
    from dlv3deploy.core.classes import VOC
    from dlv3deploy.core.datasets import open_dataset
    from dlv3deploy.core.paper.results import record_miou
    from dlv3deploy.core.progress import say
    from dlv3deploy.train.weights.download import weights_file

    previous: Path | None = None
    for count, stage in enumerate(recipe.stages, start=1):
        folder = Workspace(place.paper / training_name(recipe.stages[:count]))
        plan = plan_for(stage, sources, machine)
        say(f"{recipe.name}, stage {count} of {len(recipe.stages)}: {folder.root}")
        if previous is None:
            plan = replace(plan, backbone_weights=weights_file(stage.architecture.backbone))  # ImageNet's, by their name
        else:
            plan = replace(plan, start_from=previous)
        previous = train_stage(plan, folder)
    assert previous is not None  # a recipe has a stage
    if recipe.measured_on == "voc-test":
        masks = masks_command(previous, recipe.inference, place)
        say(f"{recipe.name}: trained; VOC's server alone can measure it, send it the masks of: {masks}")
        return
    miou = measure(previous, recipe.inference, open_dataset(sources.voc, "val", VOC).samples)
    record_miou(place, recipe, miou)
    say(f"{recipe.name}: mIoU {miou:.4f}, the paper's is {recipe.published / 100:.4f}")


def masks_command(checkpoint: Path, inference: Inference, place: Workspace) -> str:
    """What makes masks of a folder of pictures as `inference` says, at the output stride that the checkpoint was trained at."""
    strategy = ("--scales", numbers(inference.scales), *(("--flip",) if inference.flip else ()))
    return place.command("run", checkpoint, "--source", "TEST_IMAGES", "--sink", "MASKS/", *strategy)


def plan_for(stage: Stage, sources: Sources, machine: Machine) -> TrainingPlan:
    """A stage as a training plan. Pictures are fitted into 513×513 by letterbox, which leaves VOC's at their size nearly."""
    from dlv3deploy.core.classes import VOC
    from dlv3deploy.core.spec import InputSpec
    from dlv3deploy.train.plan import TrainingPlan

    data = sources.coco if stage.data == "coco-voc" else sources.voc
    assert data is not None  # looked for where a stage needs it
    return TrainingPlan(
        data=data,
        classes=VOC,
        architecture=stage.architecture,
        input=InputSpec(stage.crop, stage.crop, resize="letterbox"),
        crop=(stage.crop, stage.crop),
        steps=stage.steps,
        batch_size=stage.batch_size,
        accumulate=machine.accumulate,
        scale=stage.scale,
        flip=stage.flip,
        split="trainval" if stage.data == "voc-trainval" else "train",
        repeat_classes=stage.repeat_classes,
        optimiser="sgd",
        learning_rate=stage.learning_rate,
        poly_power=stage.poly_power,
        dropout=0.0,  # the paper names none
        frozen_batch_norm=stage.frozen_batch_norm,
        batch_norm_momentum=None if stage.frozen_batch_norm else stage.batch_norm_momentum,
        validate_every=max(1, stage.steps // VALIDATIONS),
        workers=machine.workers,
        compiled=machine.compiled,
        one_device=True,  # one recipe after another runs in this very process
    )


def train_stage(plan: TrainingPlan, folder: Workspace) -> Path:
    """The checkpoint of a stage: the one that is there, or trained now, going on where an earlier run stopped.

    It is the last one, as in the paper, not the best on the images that measure it.
    """
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.train.devices import started_by_torchrun
    from dlv3deploy.train.loop import train
    from dlv3deploy.train.run_state import RunFolder

    if started_by_torchrun():
        rule = "recipes are trained one after another by one process"
        raise UserError("`paper` under torchrun", rule, "leave torchrun out, or give the row's settings to `train`")

    run = RunFolder(folder.training)
    if not run.state.exists():
        train(plan, folder.checkpoint, folder.training)
    elif not run.load_state(plan).is_finished:  # raises for a training by another plan
        train(plan, folder.checkpoint, folder.training, resume=True)
    return run.last


def measure(checkpoint: Path, inference: Inference, samples: Sequence[Sample]) -> float:
    """mIoU, 0 to 1, of a checkpoint by an inference strategy: its output stride, scales and mirrored pictures."""
    from dlv3deploy.core.segmenter import Segmenter
    from dlv3deploy.core.strategy import Strategy
    from dlv3deploy.measure.evaluate import evaluate
    from dlv3deploy.train.torch_engine import TorchEngine

    with TorchEngine.open(checkpoint, inference.output_stride) as engine:
        size = engine.spec.input.height, engine.spec.input.width
        return evaluate(Segmenter(engine, size, Strategy(inference.scales, inference.flip)), samples).miou
