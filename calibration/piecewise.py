"""A graph run piece by piece on many images, so that its later layers may change while the earlier ones are not run again.

Between pieces every image's *live* tensors, those that are computed and still to be read, wait on disk: memory holds one image,
however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.collect import Runner, input_name, nodes_between
from dlv3deploy.calibration.network import Network, reads

if TYPE_CHECKING:
    from onnx import ModelProto

FLOAT_BYTES = 4


class Walk:
    """Goes through one graph in `folder`; the images have to be put there first.

    `run` takes the graph anew each time: what it computes must be as it was up to the last piece.
    """

    def __init__(self, folder: Path, model: ModelProto, exact: bool = False) -> None:
        self.folder, self.exact = folder, exact
        self.input = input_name(model)
        self.done = {self.input}
        self.live: list[str] = [self.input]
        self.images = 0
        self._numbers: dict[str, int] = {}
        folder.mkdir()

    def put(self, image: NDArray[np.float32]) -> None:
        """One more image, 1×3×H×W."""
        self._save(self.input, self.images, image)
        self.images += 1

    def run(self, model: ModelProto, wanted: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """The wanted tensors of every image. They, and what leads to them, are computed once for all pieces to come."""
        nodes = nodes_between(model.graph.node, self.done, wanted)
        before, read = self.live, {name for node in nodes for name in reads(node)}
        self.done |= {name for node in nodes for name in node.output}
        self.live = live_tensors(model, self.done)
        fresh = [name for name in dict.fromkeys((*self.live, *wanted)) if name not in before]
        runner = Runner(model, fresh, self.exact, [name for name in before if name in read] or before[:1])
        return self._run(runner, wanted, set(self.live), set(before).difference(self.live))

    def _run(self, runner: Runner, wanted: Sequence[str], kept: set[str], dead: set[str]) -> Iterator[dict[str, NDArray[Any]]]:
        with runner:
            for image in range(self.images):
                found = runner.run({name: self._load(name, image) for name in runner.given})
                for name in kept.intersection(found):
                    self._save(name, image, found[name])
                result = {name: found[name] if name in found else self._load(name, image) for name in wanted}
                for name in dead:
                    self._file(name, image).unlink()
                yield result

    def _save(self, name: str, image: int, values: NDArray[Any]) -> None:
        np.save(self._file(name, image), values)

    def _load(self, name: str, image: int) -> NDArray[Any]:
        values: NDArray[Any] = np.load(self._file(name, image))
        return values

    def _file(self, name: str, image: int) -> Path:
        return self.folder / f"{self._numbers.setdefault(name, len(self._numbers))}-{image}.npy"


def live_tensors(model: ModelProto, done: set[str]) -> list[str]:
    """Of the tensors `done`, those that nodes read which are still to be run, in the order of reading."""
    waiting = [node for node in model.graph.node if not done.issuperset(node.output)]
    return [name for name in dict.fromkeys(name for node in waiting for name in reads(node)) if name in done]


def live_bytes(network: Network, stops: Sequence[Sequence[str]]) -> list[int]:
    """What waits of one image after each of these pieces."""
    done, found = {network.input}, list[int]()
    for wanted in stops:
        done.update(name for node in nodes_between(network.nodes, done, wanted) for name in node.output)
        found.append(sum(FLOAT_BYTES * prod(network.shapes.get(name, ())) for name in live_tensors(network.model, done)))
    return found
