"""FrameEngine: an engine that takes frames and gives masks, with pre- and postprocessing where the network runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dlv3deploy.core.engine import Engine
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.spec import InputSpec


@dataclass(frozen=True)
class OnDevice:
    """The answer to image `index` of the last batch, which stays on the device until the next one is inferred."""

    index: int


@runtime_checkable
class FrameEngine(Engine, Protocol):
    """Its masks are those that `preprocess`, `infer` and `mask_from_scores` make."""

    @property
    def takes_frames(self) -> bool:
        """Whether it does so here, for its model; otherwise it is an engine like any other."""

    def infer_frames(self, frames: Sequence[Frame], given: InputSpec) -> None:
        """Infer H×W×3 BGR uint8 frames of any size together, as many as the engine takes at most, prepared as `given` says."""

    def mask(self, answer: OnDevice, geometry: Geometry) -> Mask:
        """H×W uint8, the mask of a frame of this geometry. Raises CheckFailed when scores are not finite."""
