"""The images that a calibration looks at: read anew in every pass, named by one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dlv3deploy.calibration.choose import evenly
from dlv3deploy.core.engine import Batch
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.images import read_frame
from dlv3deploy.core.preprocess import preprocess
from dlv3deploy.core.progress import tracked
from dlv3deploy.core.spec import InputSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Pictures:
    """Images as batches of one, 1×3×H×W float32, so that memory holds one; with a `title` a pass shows its progress."""

    images: Sequence[Path]
    input: InputSpec
    title: str = ""

    def __call__(self) -> Iterator[Batch]:
        paths = tracked(self.images, self.title, len(self.images)) if self.title else self.images
        for path in paths:
            yield preprocess(read_frame(path), self.input)[0]


def images_hash(images: Sequence[Path]) -> str:
    """One sha256 over the contents of all images, in order."""
    return hashlib.sha256("\n".join(sha256_of(path) for path in images).encode()).hexdigest()


def spread(images: Sequence[T], count: int) -> list[T]:
    """`count` of them at equal distances, all if they are fewer."""
    return [images[i] for i in evenly(len(images), count)]
