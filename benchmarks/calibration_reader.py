"""Calibration images as ONNX Runtime's quantiser and NVIDIA ModelOpt ask for them, through this project's preprocessing.

Both run in processes of their own, ModelOpt in an environment of its own: a job is a JSON file, and needs NumPy and OpenCV.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from dlv3deploy.core.engine import Batch
from dlv3deploy.core.images import list_images, read_frame
from dlv3deploy.core.preprocess import preprocess
from dlv3deploy.core.spec import InputSpec, ModelSpec


@dataclass(frozen=True)
class Job:
    """What a peer is asked for. `images` is a folder, `spec` a ModelSpec's text, `input` the name of the model's input."""

    model: str
    images: str
    spec: str
    input: str
    to: str
    method: str
    per_channel: bool = True
    float_bias: bool = False
    by_image: bool = False

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def from_command_line(cls) -> Job:
        return cls(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


class Reader:
    """Batches of one image, read when they are asked for; `get_next` returns None after the last one."""

    def __init__(self, job: Job) -> None:
        self.spec: InputSpec = ModelSpec.from_text(job.spec, "the job").input
        self.images, self.input = list_images(Path(job.images)), job.input
        self.left = self._batches()

    def get_next(self) -> dict[str, Batch] | None:
        return next(self.left, None)

    def get_first(self) -> dict[str, Batch]:
        return next(self._batches())

    def rewind(self) -> None:
        self.left = self._batches()

    def set_range(self, start_index: int, end_index: int) -> None:
        """Of these images alone, the second one left out; asked for by ONNX Runtime when it collects in portions."""
        self.left = self._batches(start_index, end_index)

    def __len__(self) -> int:
        return len(self.images)

    def _batches(self, start: int = 0, end: int | None = None) -> Iterator[dict[str, Batch]]:
        for path in self.images[start:end]:
            yield {self.input: preprocess(read_frame(path), self.spec)[0]}
