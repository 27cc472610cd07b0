"""One row of the quantisation table: the Q/DQ model is made, judged, read and shown to other runtimes, each once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import tensorrt_worker
from fact_cache import Fact, Key, digest, remembered, source_hash
from machine import installed
from measured import Limits, last_words
from peer_environment import OPENVINO, NotInstalled, Peers, with_our_package
from quantization_cases import Case
from quantization_makers import HERE, PACKAGE, Made, made
from quantization_masks import UnoptimisedEngine, masks_of, read_masks, write_masks
from quantization_methods import FLOAT, Method
from quantization_scores import BOUNDARY_PIXELS, MaskScores, agreement, score_masks
from quantized_graph import activation_pairs, int8_share_of_macs

from dlv3deploy.core.errors import Dlv3Error
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.graph import fix_input, load_onnx
from dlv3deploy.core.images import Mask
from dlv3deploy.core.progress import say
from dlv3deploy.engines.fusion import fusion_of

TENSORRT_RTX = "tensorrt-rtx"


@dataclass(frozen=True)
class Why:
    """Stands where a figure is missing: a few words for the cell, and more for the note below the table."""

    short: str
    reason: str = ""


@dataclass(frozen=True)
class Structure:
    """What a Q/DQ graph says of itself: pairs on activations; by TensorRT's rules how many of its convolutions write INT8, and
    how many kernels besides them do."""

    pairs: int
    convolutions: int
    writing_int8: int
    others: int


@dataclass(frozen=True)
class Compiled:
    """The plan that TensorRT-RTX made, `bytes_moved` of activations."""

    convolutions: int
    others: int
    bytes_moved: int


@dataclass(frozen=True)
class Row:
    """What is None was not measured. Shares are fractions from 0 to 1."""

    case: str
    title: str
    scores: MaskScores | Why
    seconds: float | None = None
    peak_mb: int | None = None
    int8_share: float | None = None
    structure: Structure | None = None
    tensorrt: Compiled | Why | None = None
    openvino: float | Why | None = None
    day: str = ""

    @property
    def failed(self) -> bool:
        return isinstance(self.scores, Why) and self.scores.short in ("failed", "not judged")


@dataclass(frozen=True)
class Bench:
    """Where rows are made and what they may take."""

    workspace: Path
    peers: Peers
    limits: Limits
    with_openvino: bool = False

    def float_row(self, case: Case) -> Row:
        """The row of the model as it is. Raises Dlv3Error when that cannot be judged, for then nothing can."""
        folder = self._folder(case, FLOAT)
        sha256 = case.fingerprints["model"]
        masks, key = _masks(case, case.model, sha256, folder)
        scores = _scores(case, folder, masks, key, masks, key)
        return Row(case.name, FLOAT.title, scores, tensorrt=_tensorrt(case, case.model, sha256, folder))

    def row(self, case: Case, method: Method) -> Row:
        """The row of a method, or why there is none; the float model's masks are taken as they lie in the workspace."""
        say(f"{case.name}: {method.title}")
        folder = self._folder(case, method)
        try:
            result = made(method, case, folder, self.peers, self.limits)
        except NotInstalled as error:
            return Row(case.name, method.title, Why("not installed", f"{error.given} {error.rule}"))
        if result.end != "done":
            limit = f"stopped after {result.seconds:.0f} s with {result.peak_mb} MB"
            return Row(case.name, method.title, Why(result.end, result.reason or limit))
        row = Row(case.name, method.title, Why("not judged"), result.seconds, result.peak_mb, day=result.day)
        try:
            graph = _graph(case, result, folder)
            row = replace(row, int8_share=graph["share"], structure=Structure(**graph["structure"]))
            row = replace(row, tensorrt=_tensorrt(case, result.model, result.sha256, folder))
            masks, key = _masks(case, result.model, result.sha256, folder)
        except Dlv3Error as error:
            return replace(row, scores=Why("not judged", str(error)))
        floats, float_key = _masks(case, case.model, case.fingerprints["model"], self._folder(case, FLOAT))
        scores = _scores(case, folder, masks, key, floats, float_key)
        openvino = self._openvino(case, result, folder, masks, key) if self.with_openvino else None
        return replace(row, scores=scores, openvino=openvino)

    def _folder(self, case: Case, method: Method) -> Path:
        return self.workspace / case.name / method.folder

    def _openvino(self, case: Case, result: Made, folder: Path, masks: Sequence[Mask], masks_key: Key) -> float | Why:
        try:
            python = self.peers.python(OPENVINO)
        except NotInstalled as error:
            return Why("not installed", f"{error.given} {error.rule}")
        worker = HERE / "openvino_worker.py"
        key = {"masks": digest(masks_key), "version": self.peers.version(OPENVINO), "source": source_hash(worker)}
        to, job = folder / "openvino.npz", folder / "openvino-job.json"
        judged = [[str(each.image.resolve()), *each.size] for each in case.judged]
        given = {"model": str(result.model), "spec": case.spec.to_text(), "judged": judged, "to": str(to)}
        job.write_text(json.dumps(given), encoding="utf-8")

        def run() -> Fact:
            done = _finished([str(python), str(worker), str(job)])
            if done.returncode:
                return {"refused": last_words(done.stderr)}
            return {"agreement": agreement(masks, read_masks(to))}

        fact = remembered(folder / "openvino.json", key, run, lambda found: "agreement" in found)
        return float(fact["agreement"]) if "agreement" in fact else Why("refused", fact["refused"])


def _masks(case: Case, model: Path, sha256: str, folder: Path) -> tuple[list[Mask], Key]:
    """The masks of all judged images, and the key of what they depend on. Raises Dlv3Error when the model cannot be run."""
    path = folder / "masks.npz"
    key: Key = {
        "model": sha256,
        "judged": case.fingerprints["judged"],
        "spec": case.spec.to_text(),
        "runtime": version("onnxruntime"),
        "source": source_hash(HERE / "quantization_masks.py", PACKAGE / "core"),
    }

    def run() -> Fact:
        with UnoptimisedEngine(model.read_bytes(), case.spec, model.name) as engine:
            write_masks(path, masks_of(engine, case.judged))
        return {"sha256": sha256_of(path)}

    remembered(folder / "masks.json", key, run, lambda fact: path.is_file() and sha256_of(path) == fact["sha256"])
    return read_masks(path), key


def _scores(case: Case, folder: Path, masks: Sequence[Mask], key: Key, floats: Sequence[Mask], float_key: Key) -> MaskScores:
    of_all: Key = {
        **{"masks": digest(key), "floats": digest(float_key), "boundary": BOUNDARY_PIXELS},
        "source": source_hash(HERE / "quantization_scores.py"),
    }

    def run() -> Fact:
        return asdict(score_masks(masks, case.labels, floats, case.spec.classes))

    return MaskScores(**remembered(folder / "scores.json", of_all, run))


def _graph(case: Case, result: Made, folder: Path) -> Fact:
    sources = HERE / "quantized_graph.py", PACKAGE / "core" / "graph.py", PACKAGE / "engines" / "fusion.py"
    key: Key = {"model": result.sha256, "source": source_hash(*sources)}

    def run() -> Fact:
        model = load_onnx(result.model)
        fusion = fusion_of(fix_input(model, (1, 3, *case.size)))
        structure = Structure(activation_pairs(model), len(fusion.convolutions), fusion.writing_int8, len(fusion.others))
        return {"share": int8_share_of_macs(model, *case.size), "structure": asdict(structure)}

    return remembered(folder / "graph.json", key, run)


def _tensorrt(case: Case, model: Path, sha256: str, folder: Path) -> Compiled | Why:
    """What TensorRT-RTX makes of the model, asked in a process of its own: a compiler's crash is an answer too."""
    worker = HERE / "tensorrt_worker.py"
    found = installed(TENSORRT_RTX)
    if found is None:
        return Why("not installed")
    key: Key = {"model": sha256, "version": found, "source": source_hash(worker, PACKAGE / "engines" / "plans")}

    def run() -> Fact:
        done = _finished([sys.executable, str(worker), str(model), *map(str, case.size)])
        plan = json.loads(done.stdout) if done.returncode == tensorrt_worker.BUILT else None
        return {"code": done.returncode, "plan": plan, "reason": last_words(done.stderr) if done.returncode else ""}

    fact = remembered(folder / "tensorrt.json", key, run, lambda fact: fact["code"] in tensorrt_worker.ANSWERS)
    return Compiled(**fact["plan"]) if fact["plan"] else Why("no", fact["reason"])


def _finished(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A command that ended by itself; Ctrl-C reaches it as well, and its answer is none then."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=with_our_package())
    if done.returncode in (-2, 130):
        raise KeyboardInterrupt
    return done
