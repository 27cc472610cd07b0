"""Segmenter: frame in, mask out. `run`, `evaluate`, calibration and training's validation all go through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.average import ScoredView, mean_mask
from dlv3deploy.core.bilinear import Scores
from dlv3deploy.core.engine import Engine, Outputs
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.frame_engine import FrameEngine, OnDevice, Paint
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.postprocess import mask_from_ids, mask_from_scores
from dlv3deploy.core.preprocess import Geometry, geometry_of, preprocess
from dlv3deploy.core.spec import InputSpec, check_size
from dlv3deploy.core.steadiness import Steadiness, SteadyScores
from dlv3deploy.core.strategy import PLAIN, Strategy
from dlv3deploy.core.views import View, views_of


@dataclass(frozen=True)
class Answer:
    """What the engine returned for one view; see `View`."""

    outputs: Outputs | OnDevice
    geometry: Geometry
    picture: int


class Segmenter:
    """One engine with the pre- and postprocessing that its spec asks for. Not thread-safe; `engine` stays the caller's.

    `size` (height, width) is for engines of dynamic size. With `steadiness` the frames are those of one video, one after the
    other. Raises UserError when the engine's size is another, fixed one, when it takes several images at once, or when its
    output cannot be averaged as `strategy` or `steadiness` ask.
    """

    def __init__(
        self,
        engine: Engine,
        size: tuple[int, int] | None = None,
        strategy: Strategy = PLAIN,
        steadiness: Steadiness | None = None,
    ) -> None:
        self.engine, self.strategy = engine, strategy
        self.input = _input_for(engine, size)
        self.steady = SteadyScores(steadiness, self.input.std) if steadiness else None
        if (strategy != PLAIN or steadiness) and engine.spec.output.kind == "mask":
            raise UserError(
                f"{engine.name} with {strategy if strategy != PLAIN else 'steadiness'}",
                "the model returns class ids, and probabilities are what is averaged",
                "export with --output scores",
            )
        if strategy != PLAIN and steadiness:
            raise UserError(f"steadiness with {strategy}", "is of one view of each frame", "leave out one of the two")
        is_plain = strategy == PLAIN and steadiness is None
        self._on_device = engine if is_plain and isinstance(engine, FrameEngine) and engine.takes_frames else None

    def __call__(self, frame: Frame, size: tuple[int, int] | None = None) -> Mask:
        """Class ids, uint8, of every pixel of an H×W×3 BGR frame; or at another `size` (height, width) of the same view."""
        return self.finish([self.infer(view) for view in self.views(frame)], size)

    def masks(self, frames: Sequence[Frame]) -> list[Mask]:
        """The masks of several frames, uint8, each of its frame's size: in as few inferences as the engine's batch allows.

        Raises as `finish` does.
        """
        if self.steady is not None or self.strategy != PLAIN or self.engine.most_images == 1:
            return [self(frame) for frame in frames]
        masks, count = list[Mask](), self.engine.most_images or max(1, len(frames))
        for start in range(0, len(frames), count):
            together = [view for frame in frames[start : start + count] for view in self.views(frame)]
            masks += [self.finish([answer]) for answer in self.infer_together(together)]
        return masks

    def views(self, frame: Frame) -> Iterator[View]:
        """What the engine has to see of the frame: one view, or as many as the strategy and a fixed size ask for."""
        if self._on_device is not None:
            yield View(frame, geometry_of(frame.shape[0], frame.shape[1], self.input), 0)
            return
        if self.strategy == PLAIN:
            yield View(*preprocess(frame, self.input), 0)
            return
        architecture = self.engine.spec.architecture
        output_stride = architecture.output_stride if architecture else 1
        yield from views_of(frame, self.input, self.strategy, self.engine.input_shape[2:], output_stride)

    def infer(self, view: View) -> Answer:
        if self._on_device is not None:
            return self.infer_together([view])[0]
        outputs = self.engine.infer(view.batch)
        if self.steady is not None:
            outputs = self.steady(_checked_scores(outputs, len(self.engine.spec.classes), self.engine.name), view.batch)[None]
        return Answer(outputs, view.geometry, view.picture)

    def overlap(self, batches: int) -> int:
        """Have the device work on so many batches at once, where that is possible; returns how many may be begun."""
        return 1 if self._on_device is None else self._on_device.overlap(batches)

    def begin(self, views: Sequence[View]) -> list[Answer]:
        """As `infer_together`, without waiting for a device: `finish` does, or `wait`.

        Answers that stay on a device are to be finished before `overlap` further calls, and are no more than the batch allows.
        """
        if self._on_device is None:
            return self.infer_together(views)
        lane = self._on_device.queue_frames([view.batch for view in views], self.input)
        return [Answer(OnDevice(index, lane), view.geometry, view.picture) for index, view in enumerate(views)]

    def wait(self, answers: Sequence[Answer]) -> None:
        """Return when the engine has run for all of them."""
        for lane in {answer.outputs.lane for answer in answers if isinstance(answer.outputs, OnDevice)}:
            assert self._on_device is not None  # whose answers they are
            self._on_device.wait(lane)

    def infer_together(self, views: Sequence[View]) -> list[Answer]:
        """What the engine says of each view, in as few inferences as its batch allows; answers that stay on a device as `begin`
        has them."""
        most = self.engine.most_images
        if self._on_device is not None:
            self.wait(answers := self.begin(views))
            return answers
        if most == 1 or len(views) == 1 or self.steady is not None or self.strategy != PLAIN:  # scales differ in size
            return [self.infer(view) for view in views]
        count, found = most or max(1, len(views)), list[Answer]()
        for start in range(0, len(views), count):
            together = views[start : start + count]
            outputs = self.engine.infer(np.concatenate([view.batch for view in together]))
            found += [Answer(outputs[i : i + 1], view.geometry, view.picture) for i, view in enumerate(together)]
        return found

    def finish_painted(self, answers: Sequence[Answer], paint: Paint | None) -> tuple[Mask, Frame | None]:
        """As `finish`, and the frame under the mask's colours, where a paint is given and a device applies it."""
        if paint is not None and self._on_device is not None and isinstance(first := answers[0].outputs, OnDevice):
            return self._on_device.painted(first, answers[0].geometry, paint)
        return self.finish(answers), None

    def finish(self, answers: Sequence[Answer], size: tuple[int, int] | None = None) -> Mask:
        """The mask of one frame from the answers to all its views, at the frame's size or another one.

        Raises CheckFailed when scores are not finite, or when there are other classes in the outputs than in the spec.
        """
        spec, name = self.engine.spec, self.engine.name
        places = [answer.geometry.to_size(*size) if size else answer.geometry for answer in answers]
        if self._on_device is not None and isinstance(first := answers[0].outputs, OnDevice):
            return self._on_device.mask(first, places[0])
        outputs = [answer.outputs for answer in answers if not isinstance(answer.outputs, OnDevice)]
        if spec.output.kind == "mask":
            return mask_from_ids(_checked_ids(outputs[0], len(spec.classes), name), places[0])
        scores = [_checked_scores(one, len(spec.classes), name) for one in outputs]
        if len(answers) == 1:  # no probabilities needed: softmax keeps the order of the classes
            return mask_from_scores(scores[0], places[0], spec.output)
        views = [ScoredView(s, place, a.picture) for s, place, a in zip(scores, places, answers, strict=True)]
        return mean_mask(views, spec.output)


def _checked_ids(outputs: Outputs, count: int, name: str) -> NDArray[Any]:
    ids: NDArray[Any] = outputs[0].reshape(outputs.shape[-2:])  # H×W or 1×H×W
    if ids.size and not (ids.min() >= 0 and ids.max() < count):
        raise CheckFailed(f"{name} returned ids from {ids.min()} to {ids.max()}, the model has {count} classes")
    return ids


def _checked_scores(outputs: Outputs, count: int, name: str) -> Scores:
    if outputs.shape[1] != count:
        raise CheckFailed(f"{name} returned scores of {outputs.shape[1]} classes, the model has {count}")
    if not np.isfinite(outputs[0]).all():
        raise CheckFailed(f"{name} returned scores that are not finite; the weights or the precision are broken")
    scores: Scores = outputs[0]
    return scores


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
    if engine.spec.architecture:
        check_size(height, width, engine.spec.architecture.output_stride)
    return replace(spec, height=height, width=width)
