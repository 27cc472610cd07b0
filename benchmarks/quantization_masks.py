"""The masks that a Q/DQ model stands for, free of any kernel's own rounding, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlv3deploy.core.engine import Batch, ClosingEngine, Engine, Outputs
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing
from dlv3deploy.core.images import Mask, read_frame
from dlv3deploy.core.progress import tracked
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import ModelSpec


@dataclass(frozen=True)
class Judged:
    """An image and the size (height, width) at which its mask is compared: its label's."""

    image: Path
    size: tuple[int, int]


class UnoptimisedEngine(ClosingEngine):
    """ONNX Runtime on the CPU with graph optimisation off: Q/DQ pairs round, and everything between them runs in float.

    So nothing but where pairs stand and what their scales are tells two models apart.
    """

    def __init__(self, model: bytes, spec: ModelSpec, where: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            self.session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions share no public base
            raise UserError(where, f"cannot be loaded by ONNX Runtime ({str(error).strip()[:200]})", "see its graph") from error
        given = self.session.get_inputs()[0]
        self.spec, self.input = spec, given.name
        batch, _, height, width = (d if isinstance(d, int) else None for d in given.shape)
        self.input_shape = (batch, 3, height, width)
        self.name = f"ONNX Runtime {onnxruntime.__version__}, graph optimisation off"

    def infer(self, batch: Batch) -> Outputs:
        outputs: Outputs = self.session.run(None, {self.input: batch})[0]
        return outputs

    def close(self) -> None:
        self.session = None


def masks_of(engine: Engine, judged: Sequence[Judged]) -> list[Mask]:
    """The mask of every image at the size it is judged at, preprocessed and postprocessed as the engine's spec says."""
    segmenter = Segmenter(engine)
    return [segmenter(read_frame(each.image), each.size) for each in tracked(judged, "judging", len(judged))]


def write_masks(path: Path, masks: Sequence[Mask]) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, *masks)


def read_masks(path: Path) -> list[Mask]:
    """The masks in the order in which they were written."""
    with np.load(path) as file:
        return [file[name] for name in file.files]
