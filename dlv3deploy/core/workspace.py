"""The folder through which commands hand over to one another, and the names that files have in it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

ENGINE_SUFFIX = ".engine"
DEFAULT_ROOT = Path("artifacts")
OWN_ENGINE_DOTS = 3  # model.<precision>.<target>.engine; `model.v2.onnx` is another model
MODEL = "model"  # the stem of everything that descends from the workspace's checkpoint


@dataclass(frozen=True)
class Workspace:
    """`./artifacts` unless `--workspace` says otherwise."""

    root: Path = DEFAULT_ROOT

    def command(self, name: str, *words: object) -> str:
        """What to type for the command `name` in this workspace, such as `dlv3deploy export --workspace DIR`."""
        place = () if self.root == DEFAULT_ROOT else ("--workspace", self.root)
        return shlex.join(map(str, ("dlv3deploy", name, *words, *place)))

    @property
    def checkpoint(self) -> Path:
        return self.root / f"{MODEL}.safetensors"

    @property
    def onnx(self) -> Path:
        return self.root / f"{MODEL}.onnx"

    def stem_for(self, source: Path) -> str:
        """What artefacts of an ONNX file are called: `model` for the workspace's own alone, whatever others are called."""
        if source.resolve() == self.onnx.resolve():
            return MODEL
        return f"{source.resolve().parent.name}-{MODEL}" if source.stem == MODEL else source.stem

    def int8_onnx(self, source: Path) -> Path:
        """The Q/DQ file that belongs to an ONNX file: `model.int8.onnx` for the workspace's own."""
        return self.root / f"{self.stem_for(source)}.int8.onnx"

    def calibration(self, source: Path) -> Path:
        """The calibration table of an ONNX file: `calibration.json` for the workspace's own."""
        stem = self.stem_for(source)
        return self.root / ("calibration.json" if stem == MODEL else f"{stem}.calibration.json")

    @property
    def training(self) -> Path:
        return self.root / "train"

    @property
    def paper(self) -> Path:
        """Where the paper's figure and the results of its experiments lie."""
        return self.root / "paper"

    def backbone(self, name: str) -> Path:
        """Where the weights of an imported backbone go."""
        return self.root / "backbones" / f"{name}.safetensors"

    def engine(self, source: Path, precision: str, target: str) -> Path:
        """Where the engine of an ONNX file goes; only those of the workspace's own model are taken by default."""
        return self.root / f"{self.stem_for(source)}.{precision}.{target}{ENGINE_SUFFIX}"

    def engines(self) -> list[Path]:
        found = self.root.glob(f"{MODEL}.*{ENGINE_SUFFIX}")
        return sorted(path for path in found if path.name.count(".") == OWN_ENGINE_DOTS)

    def engines_of_others(self) -> list[Path]:
        """Engines of ONNX files that are not the workspace's own."""
        return sorted(set(self.root.glob(f"[!.]*{ENGINE_SUFFIX}")) - set(self.engines()))


def by_training(checkpoint: Path) -> str:
    """The remedy for a checkpoint that is missing or damaged: the command that makes one, where it lies if that can be."""
    place = Workspace(checkpoint.parent)
    return f"make one with: {(place if checkpoint == place.checkpoint else Workspace()).command('train', 'DATA')}"


def by_exporting(onnx: Path) -> str:
    """As `by_training`, for an ONNX file; where it is a checkpoint that was named, by exporting that."""
    if onnx.suffix == ".safetensors" and onnx.is_file():
        return f"export it first: {Workspace().command('export', onnx)}"
    return f"make one with: {_command_for(onnx, onnx == Workspace(onnx.parent).onnx, 'export', '.onnx')}"


def by_building(engine: Path) -> str:
    """As `by_training`, for an engine."""
    return f"make one with: {_command_for(engine, engine.name.startswith(f'{MODEL}.'), 'build-engine', ENGINE_SUFFIX)}"


def _command_for(artefact: Path, is_own: bool, name: str, suffix: str) -> str:
    """The command `name` in the workspace that `artefact` is an own file of, or with `artefact` as what it is to write."""
    if is_own:
        return Workspace(artefact.parent).command(name)
    return Workspace().command(name, *(("--to", artefact) if artefact.suffix == suffix else ()))


def manifest_path(engine: Path) -> Path:
    """Where an engine's manifest lies: beside it, `.json` added."""
    return engine.with_name(engine.name + ".json")


def report_path(calibration: Path) -> Path:
    """Where the report on a calibration lies: beside its table, `calibration.report.json` beside `calibration.json`."""
    return _beside(calibration, ".report.json")


def report_page(calibration: Path) -> Path:
    """The same report as a page: `calibration.html` beside `calibration.json`."""
    return _beside(calibration, ".html")


def _beside(table: Path, suffix: str) -> Path:
    return table.with_name((table.stem if table.suffix == ".json" else table.name) + suffix)
