"""FrameEngine: an engine that takes frames and gives masks, with pre- and postprocessing where the network runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.engine import Engine
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.spec import InputSpec


@dataclass(frozen=True, eq=False)
class Paint:
    """How classes are shown over a frame: for each id its blue, green and red and whether it is drawn (256×4 uint8), blended in
    with an opacity from 0 to 1."""

    table: NDArray[np.uint8]
    opacity: float


@dataclass(frozen=True)
class OnDevice:
    """The answer to image `index` of a batch, which stays on the device until its lane takes another batch."""

    index: int
    lane: int = 0


@runtime_checkable
class FrameEngine(Engine, Protocol):
    """Its masks are those that `preprocess`, `infer` and `mask_from_scores` make. Batches are queued in lanes, which take
    turns: one, or as many as `overlap` has opened."""

    @property
    def takes_frames(self) -> bool:
        """Whether it does so here, for its model; otherwise it is an engine like any other."""

    def overlap(self, batches: int) -> int:
        """Have so many batches worked on at once, or fewer where memory or open shapes do not allow it; returns how many."""

    def queue_frames(self, frames: Sequence[Frame], given: InputSpec) -> int:
        """Queue H×W×3 BGR uint8 frames of any size together, as many as the engine takes at most, prepared as `given` says.

        Returns the lane that has them. The frames are copied before this returns."""

    def wait(self, lane: int) -> None:
        """Return when the network has run in this lane."""

    def mask(self, answer: OnDevice, geometry: Geometry) -> Mask:
        """H×W uint8, the mask of a frame of this geometry. Raises CheckFailed when scores are not finite."""

    def painted(self, answer: OnDevice, geometry: Geometry, paint: Paint) -> tuple[Mask, Frame]:
        """The mask, and the frame with its colours over it, H×W×3; raises as `mask` does."""
