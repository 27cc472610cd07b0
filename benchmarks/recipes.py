"""How the networks of the CamVid table are trained and judged, as commands in which the reader's own files are words.

`CAMVID`, `WORKSPACE` and `…_WEIGHTS` stand for what a machine has; `Places` puts it in, and takes it out of messages again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Command = tuple[str, ...]  # what follows `dlv3deploy`

CLASSES = ("--classes", "camvid")
# The README's, two CPU cores.
MOBILENET_V2: Command = (
    *("--mean", "127.5,127.5,127.5", "--std", "127.5,127.5,127.5", "--size", "353x481", "--crop", "257x321"),
    *("--scale", "0.5,1.25", "--batch-size", "6", "--dice", "1", "--steps", "1800", "--validate-every", "300", "--ema", "0.99"),
)
# The paper's network of Table 6 and its protocol (sections 4.1 and 4.2), in a tenth of the steps: CamVid is small.
RESNET_NETWORK: Command = ("--multi-grid", "1,2,4", "--no-final-convolution")
RESNET: Command = (
    *("--size", "353x481", "--crop", "353x481", "--optimiser", "sgd"),
    *("--batch-size", "16", "--steps", "3000", "--validate-every", "500", "--compile", "--workers", "8"),
)


@dataclass(frozen=True)
class Stage:
    """One training, in the `folder` of the workspace; `.` is the workspace itself."""

    folder: str
    options: Command
    output_stride: int = 16

    @property
    def place(self) -> str:
        return "WORKSPACE" if self.folder == "." else f"WORKSPACE/{self.folder}"

    @property
    def command(self) -> Command:
        return ("train", "CAMVID", "--workspace", self.place, *CLASSES, *self.options)


@dataclass(frozen=True)
class Recipe:
    """Trainings one after another, of which the last is judged."""

    backbone: str
    network: str
    stages: tuple[Stage, ...]
    needs_gpu: bool

    def evaluation(self, inference: Inference) -> Command:
        last = self.stages[-1]
        other = () if inference.output_stride == last.output_stride else ("--output-stride", str(inference.output_stride))
        checkpoint = f"{last.place}/model.safetensors"
        return ("evaluate", checkpoint, "--data", "CAMVID", "--split", "val", *other, *inference.options)


@dataclass(frozen=True)
class Inference:
    name: str
    output_stride: int
    options: Command = ()


# The rows of the paper's Table 6.
INFERENCES = (
    Inference("output stride 16", 16),
    Inference("output stride 8", 8),
    Inference("output stride 8, multi-scale", 8, ("--scales", "paper")),
    Inference("output stride 8, multi-scale, flip", 8, ("--scales", "paper", "--flip")),
)


def _mobilenet_v2() -> Recipe:
    options = ("--backbone-weights", "MOBILENET_V2_WEIGHTS", *MOBILENET_V2)
    return Recipe("mobilenet_v2", "MobileNetV2", (Stage(".", options),), needs_gpu=False)


def _resnet(backbone: str, network: str) -> Recipe:
    """At output stride 16 with batch norm learning, then at 8 with batch norm frozen and a smaller rate."""
    weights, begun = f"{backbone.upper()}_WEIGHTS", ("--backbone", backbone, *RESNET_NETWORK)
    coarse = Stage(f"{backbone}-os16", (*begun, *RESNET, "--backbone-weights", weights, "--learning-rate", "0.007"))
    begin = ("--from", f"{coarse.place}/model.safetensors", "--output-stride", "8", "--freeze-batch-norm")
    fine = Stage(f"{backbone}-os8", (*RESNET, *begin, "--learning-rate", "0.001"), output_stride=8)
    return Recipe(backbone, network, (coarse, fine), needs_gpu=True)


RECIPES = {
    "mobilenet_v2": _mobilenet_v2(),
    "resnet50": _resnet("resnet50", "ResNet-50"),
    "resnet101": _resnet("resnet101", "ResNet-101"),
}


@dataclass(frozen=True)
class Places:
    """`weights` by backbone: a file, or a name of `dlv3deploy import-weights --list`."""

    data: Path
    workspace: Path
    weights: Mapping[str, str]

    def _words(self) -> dict[str, str]:
        weights = {f"{backbone.upper()}_WEIGHTS": given for backbone, given in self.weights.items()}
        return {"CAMVID": str(self.data), "WORKSPACE": str(self.workspace), **weights}

    def fill(self, command: Sequence[str]) -> list[str]:
        """`command` with this machine's files."""
        words = self._words()
        return [words.get(head, head) + slash + tail for head, slash, tail in (part.partition("/") for part in command)]

    def hide(self, text: str) -> str:
        """`text` with the words instead of paths, as given and in full; the longest first, for one may lie in another."""
        paths = {path: word for word, path in self._words().items() if "/" in path or Path(path).exists()}
        paths |= {str(Path(path).resolve()): word for path, word in paths.items()}
        for path in sorted(paths, key=len, reverse=True):
            text = text.replace(path, paths[path])
        return text
