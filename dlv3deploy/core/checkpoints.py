"""What a checkpoint says about itself, read without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import require_file
from dlv3deploy.core.spec import SPEC_KEY, ModelSpec
from dlv3deploy.core.workspace import by_training


@dataclass(frozen=True)
class CheckpointFacts:
    """The spec, and how many numbers the file stores (parameters and batch-norm statistics)."""

    spec: ModelSpec
    numbers: int


def checkpoint_facts(path: Path) -> CheckpointFacts:
    """Raises UserError for anything but a whole checkpoint of this program."""
    from safetensors import SafetensorError, safe_open

    remedy = by_training(path)
    require_file(path, remedy)
    try:
        with safe_open(str(path), "np") as file:
            metadata: dict[str, str] = file.metadata() or {}
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(str(path), f"is no whole safetensors file ({str(error).partition(chr(10))[0]})", remedy) from error
    if SPEC_KEY not in metadata:
        raise UserError(str(path), "is a checkpoint of another program: it holds no model description", remedy)
    return CheckpointFacts(ModelSpec.from_text(metadata[SPEC_KEY], str(path)), sum(math.prod(shape) for shape in shapes))
