"""From an ONNX file and images to a Q/DQ ONNX file and its calibration table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.calibration.auto import Trial, choose_method
from dlv3deploy.calibration.fidelity import Fidelity, Judge
from dlv3deploy.calibration.method import AUTO, Method, parse_method
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.quantisation import Calibration, Quantisation
from dlv3deploy.calibration.table import CalibrationKey, CalibrationTable, TriedMethod
from dlv3deploy.calibration.weights import PER_CHANNEL, WeightGrid
from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.graph import embed_spec, embedded_spec, load_onnx, save_onnx
from dlv3deploy.core.images import read_frame
from dlv3deploy.core.preprocess import preprocess
from dlv3deploy.core.progress import tracked
from dlv3deploy.core.spec import InputSpec, ModelSpec

if TYPE_CHECKING:
    from onnx import ModelProto

RECIPE = "placement 2"  # the number grows when a method gives another model than before
TRIAL_IMAGES = 32  # that `auto` tries methods on
HELD_OUT_IMAGES = 8  # that methods are judged on


@dataclass(frozen=True)
class Request:
    """What to calibrate and how. `method` is `auto` or what `parse_method` reads, `keep` are patterns of convolutions' names
    that stay in floating point, `time_budget_s` ends auto's trials."""

    onnx: Path
    spec: ModelSpec
    images: Sequence[Path]
    method: str = AUTO
    grid: WeightGrid = PER_CHANNEL
    keep: tuple[str, ...] = ()
    time_budget_s: float | None = None

    def key(self) -> CalibrationKey:
        given = self.spec.input
        how = f"{given.colour_order} {given.resize}, mean {given.mean}, std {given.std}"
        words = [self.method, RECIPE, str(self.grid), *(f"keep {pattern}" for pattern in self.keep)]
        words += [] if self.time_budget_s is None else [f"within {self.time_budget_s:g} s"]
        size = given.height, given.width
        return CalibrationKey(sha256_of(self.onnx), images_hash(self.images), len(self.images), size, how, ", ".join(words))


def calibrate(
    request: Request, int8_path: Path, table_path: Path, said: Callable[[str], None] = lambda _: None
) -> CalibrationTable:
    """Write the INT8 model and its table, with statistics from the images at the spec's input size.

    Returns the table of an earlier call when nothing that it depends on has changed. Raises UserError for unreadable images or
    a graph that cannot be quantised, CheckFailed when activations are not finite; older files then stay as they were.
    """
    if request.method != AUTO:
        parse_method(request.method, request.grid)  # refused before anything is read
    key = request.key()
    if (done := _done_before(key, int8_path, table_path)) is not None:
        return done
    given = request.spec.input
    network = Network.prepared(load_onnx(request.onnx), given.height, given.width)
    keep = kept(network, request.keep)
    trials = _trials(network, request, keep, said) if request.method == AUTO else []
    method = trials[0].method if trials else parse_method(request.method, request.grid)
    quantisation = Calibration(network, Pictures(request.images, given, "calibrating"), keep).quantise(method)
    result = quantisation.model()
    fidelity = Judge(network.model, Pictures(held_out(request.images), given)())(result)
    table = _table(key, quantisation, method, fidelity, trials)
    _write(request, result, table, int8_path, table_path)
    return table


def kept(network: Network, patterns: Sequence[str]) -> frozenset[str]:
    """The convolutions that a pattern names. Raises UserError for a pattern that names none."""
    names = [conv.name for conv in network.convs]
    found = set[str]()
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise UserError(
                f"--keep-fp16 {pattern}",
                "names no convolution of this model",
                f"its convolutions are {', '.join(names[:3])} …; `dlv3deploy inspect` lists them",
            )
        found.update(matches)
    return frozenset(found)


@dataclass(frozen=True)
class Pictures:
    """Images as batches of one, read anew in every pass, so that memory holds one."""

    images: Sequence[Path]
    input: InputSpec
    title: str = ""

    def __call__(self) -> Iterator[Batch]:
        paths = tracked(self.images, self.title, len(self.images)) if self.title else self.images
        for path in paths:
            yield preprocess(read_frame(path), self.input)[0]


def held_out(images: Sequence[Path]) -> list[Path]:
    """Some of the images, spread evenly, to judge a finished model on."""
    return spread(images, HELD_OUT_IMAGES)


def _trials(network: Network, request: Request, keep: frozenset[str], said: Callable[[str], None]) -> list[Trial]:
    """Every fifth image judges what is calibrated on the others; with fewer than five all do both, and that is said."""
    few = spread(request.images, TRIAL_IMAGES + HELD_OUT_IMAGES)
    judges = few[2::5]
    shown = [path for path in few if path not in judges]
    if not judges:
        said(f"{len(few)} image{'s' * (len(few) > 1)}: methods are judged on what they were calibrated on; give five or more")
        judges = shown = few
    given = request.spec.input
    calibration = Calibration(network, Pictures(shown, given, "trying methods"), keep)
    judge = Judge(network.model, Pictures(judges, given)())
    return choose_method(calibration, judge, request.grid, request.time_budget_s, said)


def _table(
    key: CalibrationKey, quantisation: Quantisation, method: Method, fidelity: Fidelity, trials: Sequence[Trial]
) -> CalibrationTable:
    tried = tuple(TriedMethod(str(trial.method), trial.fidelity, trial.seconds) for trial in trials)
    return CalibrationTable(key, quantisation.ranges, quantisation.placement.kept_float, str(method), fidelity, tried)


def _write(request: Request, result: ModelProto, table: CalibrationTable, int8_path: Path, table_path: Path) -> None:
    parents = {"onnx": table.key.onnx_sha256, "calibration": table.key.digest()}
    embed_spec(result, request.spec.made_from(**parents))
    save_onnx(int8_path, result)
    table.write(table_path)


def made_earlier(onnx: Path, spec: ModelSpec, int8_path: Path, table_path: Path) -> CalibrationTable | None:
    """The table of a calibration of this very file that is still whole, by whatever method; None when there is none.

    Raises UserError when it was made at another input size.
    """
    try:
        table = CalibrationTable.read(table_path)
    except UserError:
        return None
    found = table.key
    if found.onnx_sha256 != sha256_of(onnx) or _done_before(found, int8_path, table_path) is None:
        return None
    size = spec.input.height, spec.input.width
    if found.resolution != size:
        raise UserError(
            f"{table_path}, made at {found.resolution[0]}×{found.resolution[1]}",
            f"ranges of atrous convolutions do not hold at another size, and the engine's is {size[0]}×{size[1]}",
            f"calibrate at it: dlv3deploy calibrate --size {size[0]}x{size[1]}, or give --images",
        )
    return table


def _done_before(key: CalibrationKey, int8_path: Path, table_path: Path) -> CalibrationTable | None:
    if not (int8_path.is_file() and table_path.is_file()):
        return None
    try:
        table, spec = CalibrationTable.read(table_path), embedded_spec(load_onnx(int8_path), str(int8_path))
    except UserError:
        return None  # damaged: made again
    same = table.key == key and spec is not None and spec.parents.get("calibration") == key.digest()
    return table if same else None


def images_hash(images: Sequence[Path]) -> str:
    """One sha256 over the contents of all images, in order."""
    return hashlib.sha256("\n".join(sha256_of(path) for path in images).encode()).hexdigest()


def spread(images: Sequence[Path], count: int) -> list[Path]:
    """`count` images at equal distances over the sorted list, so that a video's whole length is covered."""
    if len(images) <= count:
        return list(images)
    return [images[round(i * (len(images) - 1) / max(1, count - 1))] for i in range(count)]
