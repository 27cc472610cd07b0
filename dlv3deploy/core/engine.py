"""Engine: the one form in which every backend executes a model."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.spec import ModelSpec

if TYPE_CHECKING:
    from typing_extensions import Self

Batch = NDArray[np.float32]  # N×3×H×W, preprocessed as the spec's input says
Outputs = NDArray[Any]  # scores or logits: float32 N×C×h×w; mask: whole numbers N×H×W or N×1×H×W


class Engine(Protocol):
    """A loaded model. Use it as a context manager; `infer` may not be called after `close`, nor from two threads at once.

    `input_shape` is N×3×H×W with None where the engine takes any size. The array that `infer` returns belongs to the caller:
    the engine neither keeps nor rewrites it.
    """

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def input_shape(self) -> tuple[int | None, int, int | None, int | None]: ...

    @property
    def most_images(self) -> int | None:
        """How many images `infer` takes at once; None where any number."""

    @property
    def name(self) -> str:
        """What runs it and on what, for people: `ONNX Runtime 1.32.0, CPU`."""

    def infer(self, batch: Batch) -> Outputs: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class ClosingEngine:
    """The context-manager half of an Engine, for backends to inherit; its `input_shape` says how many images it takes."""

    input_shape: tuple[int | None, int, int | None, int | None]

    @property
    def most_images(self) -> int | None:
        return self.input_shape[0]

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Free what the backend holds; calling it twice is allowed."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def check_batch(engine: Engine, batch: Batch) -> None:
    """Raise ValueError when `batch` is not what `engine` takes; a program's mistake, never a user's."""
    fits = batch.dtype == np.float32 and batch.ndim == 4
    fits = fits and all(want in (None, got) for want, got in zip(engine.input_shape, batch.shape, strict=True))
    if not fits:
        raise ValueError(f"{engine.name} takes float32 {engine.input_shape}, was given {batch.dtype} {batch.shape}")
