"""Segmenter: frame in, mask out. `run`, `evaluate`, calibration and training's validation all go through it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dlv3deploy.core.engine import Batch, Engine, Outputs
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.postprocess import mask_from_ids, mask_from_scores
from dlv3deploy.core.preprocess import Geometry, preprocess
from dlv3deploy.core.spec import InputSpec, check_size


class Segmenter:
    """One engine with the pre- and postprocessing that its spec asks for. Not thread-safe; `engine` stays the caller's.

    `size` (height, width) is for engines of dynamic size. Raises UserError when the engine's size is another, fixed one, or
    when it takes several images at once.
    """

    def __init__(self, engine: Engine, size: tuple[int, int] | None = None) -> None:
        self.engine = engine
        self.input = _input_for(engine, size)

    def __call__(self, frame: Frame, size: tuple[int, int] | None = None) -> Mask:
        """Class ids, uint8, of every pixel of an H×W×3 BGR frame; or at another `size` (height, width) of the same view."""
        batch, geometry = self.prepare(frame)
        return self.finish(self.engine.infer(batch), geometry.to_size(*size) if size else geometry)

    def prepare(self, frame: Frame) -> tuple[Batch, Geometry]:
        return preprocess(frame, self.input)

    def finish(self, outputs: Outputs, geometry: Geometry) -> Mask:
        """The mask from what the engine returned for one frame.

        Raises CheckFailed when scores are not finite, or when there are other classes in the outputs than in the spec.
        """
        spec, name = self.engine.spec, self.engine.name
        count = len(spec.classes)
        if spec.output.kind == "mask":
            ids = outputs[0].reshape(outputs.shape[-2:])  # H×W or 1×H×W
            if ids.size and not (ids.min() >= 0 and ids.max() < count):
                raise CheckFailed(f"{name} returned ids from {ids.min()} to {ids.max()}, the model has {count} classes")
            return mask_from_ids(ids, geometry)
        if outputs.shape[1] != count:
            raise CheckFailed(f"{name} returned scores of {outputs.shape[1]} classes, the model has {count}")
        if not np.isfinite(outputs[0]).all():
            raise CheckFailed(f"{name} returned scores that are not finite; the weights or the precision are broken")
        return mask_from_scores(outputs[0], geometry, spec.output.coordinates)


def _input_for(engine: Engine, size: tuple[int, int] | None) -> InputSpec:
    spec = engine.spec.input
    if engine.input_shape[0] not in (None, 1):
        raise UserError(
            engine.name, f"takes {engine.input_shape[0]} images at once, frames come one by one", "export for a batch of one"
        )
    fixed = engine.input_shape[2], engine.input_shape[3]
    height, width = size or (fixed[0] or spec.height, fixed[1] or spec.width)
    if (fixed[0] or height, fixed[1] or width) != (height, width):
        raise UserError(
            f"size {height}×{width}",
            f"this model's input is fixed at {fixed[0]}×{fixed[1]}",
            "leave the size out, or export with --dynamic-size",
        )
    if size and engine.spec.architecture:
        check_size(height, width, engine.spec.architecture.output_stride)
    return replace(spec, height=height, width=width)
