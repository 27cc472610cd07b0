"""The package as a library: `dlv3deploy.Segmenter` opens a model file and makes masks of frames."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from dlv3deploy.commands.models import best_artefact, open_model
from dlv3deploy.core import segmenter as core
from dlv3deploy.core.classes import Classes, read_classes
from dlv3deploy.core.foreign import Description
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.spec import ModelSpec, OutputKind, Triple
from dlv3deploy.core.strategy import Strategy
from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from typing_extensions import Self


class Segmenter:
    """A checkpoint (.safetensors), an ONNX file or an engine, opened; of a folder, a workspace, the best one for this machine.

    Use it as a context manager, or call `close`; `mask = segmenter(frame)` then. Calls may come from any thread: one waits for
    the other.

    `size` (height, width) is for models of dynamic size. `scales` and `flip` average over views of the frame (paper, Table 6).
    `classes` (a name such as "voc", a file, or Classes), `mean` and `std` (red, green, blue in 8-bit pixel units) and `output`
    describe an ONNX file that does not describe itself.

    Raises UserError for a file that is missing, no model, or not for this machine; StaleArtefact for an engine that no longer
    fits what it was made from.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        size: tuple[int, int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        classes: str | Path | Classes | None = None,
        mean: Triple | None = None,
        std: Triple | None = None,
        output: OutputKind | None = None,
    ) -> None:
        path = Path(model)
        known = read_classes(str(classes)) if isinstance(classes, str | Path) else classes
        described = Description(known, mean=mean, std=std, output=output)
        self._engine = open_model(best_artefact(Workspace(path)) if path.is_dir() else path, described)
        self._lock = threading.Lock()
        try:
            self._segmenter = core.Segmenter(self._engine, size, Strategy(tuple(scales), flip))
        except BaseException:
            self._engine.close()
            raise

    @property
    def spec(self) -> ModelSpec:
        """What the model is: its classes with their names and colours, its input and its output."""
        return self._engine.spec

    @property
    def backend(self) -> str:
        """What runs it and on what, for people."""
        return self._engine.name

    def __call__(self, frame: Frame) -> Mask:
        """Class ids, H×W uint8, of every pixel of an H×W×3 BGR uint8 frame.

        Raises ValueError for an array of another form, CheckFailed where the model returns what is no result.
        """
        return self.masks([frame])[0]

    def masks(self, frames: Sequence[Frame]) -> list[Mask]:
        """The masks of several frames, of any sizes; in one inference where the model takes a batch. Raises as a call does."""
        for frame in frames:
            if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype.name != "uint8" or not frame.size:
                raise ValueError(f"a frame is H×W×3 uint8, blue green red; given was {frame.dtype} {frame.shape}")
        with self._lock:
            return self._segmenter.masks(frames)

    def close(self) -> None:
        """Free what the backend holds; calling it twice is allowed."""
        with self._lock:
            self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
