"""`dlv3deploy train --quantize`: from a calibrated INT8 file to one whose weights have learned to live on their grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlv3deploy.commands.calibrated_files import Calibrated, find_calibrated
from dlv3deploy.commands.options import parse_choice, parse_pair
from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from onnx import ModelProto

    from dlv3deploy.calibration.fidelity import Fidelity
    from dlv3deploy.core.datasets import Dataset
    from dlv3deploy.core.spec import ModelSpec
    from dlv3deploy.train.quantized.finetune import FineTuned
    from dlv3deploy.train.quantized.settings import FineTuning

FILES = ("data", "workspace", "start_from", "quantize")
SETTINGS = (
    *("steps", "batch_size", "learning_rate", "poly_power", "validate_every"),
    *("scale", "flip", "split", "seed", "workers"),
)
VALIDATION_IMAGES = 200  # spread evenly over the validation set
FIDELITY_IMAGES = 8


def train_quantized(given: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """Fine-tune the INT8 model of the workspace, or of `--from`, in its Q/DQ form; kept when it is no worse.

    `given` are the options that stand on the command line, by parameter as they are spelt; `values` those of all parameters.
    """
    from dlv3deploy.core.datasets import find_root
    from dlv3deploy.core.progress import say

    settings, place = _settings(given, values), Workspace(values["workspace"])
    found = find_calibrated(place, values["start_from"])
    root = find_root(values["data"])
    train_set, val_set = _data(root, settings, found.spec)

    from dlv3deploy.train.quantized.finetune import fine_tune

    say(f"fine-tuning {found.int8}: {found.table.chosen}")
    result = fine_tune(found.model, found.spec, train_set, val_set, settings, place.training / "quantized")
    _keep_if_no_worse(result, found, val_set, str(settings), root)
    if result.stopped:
        raise KeyboardInterrupt
    own = found.source.resolve() == place.onnx.resolve()
    say(f"next: {place.command('build-engine', '--int8', *(() if own else (found.source,)))}")


def _settings(given: Mapping[str, str], values: Mapping[str, Any]) -> FineTuning:
    """From the options that were given: the defaults are others than for training. Raises UserError for idle options."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.train.quantized.settings import FineTuning

    if idle := [spelt for name, spelt in given.items() if name not in (*SETTINGS, *FILES)]:
        named, options = ", ".join(idle), ", ".join(f"--{name.replace('_', '-')}" for name in SETTINGS)
        raise UserError(
            f"{named} with --quantize",
            f"network, input and classes are the INT8 file's; the options are {options}",
            f"leave {named} out",
        )
    chosen = {name: values[name] for name in SETTINGS if name in given}
    if "scale" in chosen:
        chosen["scale"] = parse_pair(chosen["scale"], "--scale")
    if "split" in chosen:
        chosen["split"] = parse_choice(chosen["split"], "--split", ("train", "trainval"))
    return FineTuning(**chosen)


def _data(root: Path, settings: FineTuning, spec: ModelSpec) -> tuple[Dataset, Dataset]:
    from dlv3deploy.calibration.pictures import spread
    from dlv3deploy.core.datasets import open_dataset, require_same_classes

    require_same_classes(root, spec.classes)
    train_set, val_set = (open_dataset(root, split, spec.classes) for split in (settings.split, "val"))
    return train_set, replace(val_set, samples=tuple(spread(val_set.samples, VALIDATION_IMAGES)))


def _keep_if_no_worse(result: FineTuned, found: Calibrated, val_set: Dataset, settings: str, root: Path) -> None:
    """Measure both models as ONNX Runtime runs them, and put the tuned one in place. Raises CheckFailed when it is worse."""
    from dlv3deploy.calibration.exact_engine import ExactEngine
    from dlv3deploy.calibration.fine_tuned import Tuning, put_in_place
    from dlv3deploy.core.errors import CheckFailed
    from dlv3deploy.core.progress import say
    from dlv3deploy.core.segmenter import Segmenter
    from dlv3deploy.core.spec import TrainingFacts
    from dlv3deploy.measure.evaluate import evaluate

    models = found.model, result.model
    before, after = (evaluate(Segmenter(ExactEngine(model, found.spec)), val_set.samples) for model in models)
    say(f"validation mIoU: calibrated {before.miou:.4f}, fine-tuned {result.steps} steps {after.miou:.4f}")
    if after.miou < before.miou:
        remedy = "try more --steps or a lower --learning-rate"
        raise CheckFailed(f"fine-tuning made it worse, and {found.int8} stays as it was; {remedy}")
    trained = (found.spec.training.steps if found.spec.training else 0) + result.steps
    facts = TrainingFacts(str(root.resolve()), trained, after.miou, after.pixel_accuracy)
    fidelity = _fidelity(result.model, found, val_set)
    tuning = Tuning(result.model, result.activation_steps, result.steps, settings, fidelity, facts)
    made = put_in_place(tuning, found.spec, found.int8, found.table, found.table_path)
    kept = found.int8.with_suffix(".previous.onnx")
    say(f"wrote {found.int8}; against the float model {made.fidelity}; the one before is kept as {kept}")


def _fidelity(model: ModelProto, found: Calibrated, val_set: Dataset) -> Fidelity:
    from dlv3deploy.calibration.fidelity import Judge
    from dlv3deploy.calibration.network import Network
    from dlv3deploy.calibration.pictures import Pictures, spread
    from dlv3deploy.core.graph import load_onnx

    given = found.spec.input
    images = [sample.image for sample in spread(val_set.samples, FIDELITY_IMAGES)]
    network = Network.prepared(load_onnx(found.source), given.height, given.width)
    return Judge(network.model, Pictures(images, given)())(model)
