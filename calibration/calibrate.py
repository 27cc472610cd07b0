"""From an ONNX file and images to a Q/DQ ONNX file and its calibration table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlv3deploy.calibration.auto import Trial, choose_method
from dlv3deploy.calibration.earlier import done_before, other_model
from dlv3deploy.calibration.fidelity import Judge
from dlv3deploy.calibration.implicit import JETPACK_6, ImplicitFiles
from dlv3deploy.calibration.int8_network import Quantisation
from dlv3deploy.calibration.method import AUTO, Method, parse_method
from dlv3deploy.calibration.mixed import ALL_INT8, Mixture, search_mixture
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.pictures import Pictures, images_hash, spread
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.calibration.quantize import require_opset
from dlv3deploy.calibration.report import layer_report
from dlv3deploy.calibration.report_file import read_report, remove_report, write_report
from dlv3deploy.calibration.sensitivity import sensitivities
from dlv3deploy.calibration.table import FEWEST_TO_SPLIT, CalibrationKey, CalibrationTable, TriedMethod, how_pixels_are_read
from dlv3deploy.calibration.targets import check_targets
from dlv3deploy.calibration.trt_cache import header_version
from dlv3deploy.calibration.weights import PER_CHANNEL, WeightGrid
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.graph import embed_spec, embedded_spec, graph_sha256, load_onnx, save_onnx
from dlv3deploy.core.spec import ModelSpec

if TYPE_CHECKING:
    from onnx import ModelProto

RECIPE = "recipe 12"  # the number grows when a method gives another model than before
TRIAL_IMAGES = 20  # that `auto` tries methods on, beside 10 that it judges them on
NAMED = 5  # convolutions, in one line
JUDGED_IMAGES = 8  # that a finished model is compared with the float model on


@dataclass(frozen=True)
class Budget:
    """The mIoU that INT8 may lose, 0 to 1, and who says what it loses: `drop_from` makes of the float model a function that
    tells it of another form, by the pictures and labels that `judges` is a hash of or another name for."""

    miou: float
    judges: str
    drop_from: Callable[[ModelProto], Callable[[ModelProto], float]]


@dataclass(frozen=True)
class Request:
    """What to calibrate and how. `method` is `auto` or what `parse_method` reads, `keep` are patterns of convolutions' names
    that stay in floating point, `time_budget_s` ends auto's trials, `pooling` makes image pooling INT8 as well."""

    onnx: Path
    spec: ModelSpec
    images: Sequence[Path]
    method: str = AUTO
    grid: WeightGrid = PER_CHANNEL
    keep: tuple[str, ...] = ()
    time_budget_s: float | None = None
    budget: Budget | None = None
    trt_version: str = JETPACK_6
    pooling: bool = False

    def key(self) -> CalibrationKey:
        given = self.spec.input
        words = [
            self.method,
            RECIPE,
            str(self.grid),
            f"TensorRT {self.trt_version}",
            *(f"keep {pattern}" for pattern in self.keep),
        ]
        words += [] if self.time_budget_s is None else [f"within {self.time_budget_s:g} s"]
        words += ["image pooling in INT8"] if self.pooling else []
        words += [] if self.budget is None else [f"mIoU budget {self.budget.miou:g} by {self.budget.judges}"]
        size = given.height, given.width
        return CalibrationKey(
            sha256_of(self.onnx),
            images_hash(self.images),
            len(self.images),
            size,
            how_pixels_are_read(given),
            ", ".join(words),
        )


def calibrate(
    request: Request,
    int8_path: Path,
    table_path: Path,
    said: Callable[[str], None] = lambda _: None,
    report_path: Path | None = None,
) -> CalibrationTable:
    """Write the INT8 model, its table and, for implicit INT8, its cache, with statistics from the images at the spec's input
    size; a report too if it is wanted.

    Returns the table of an earlier call when nothing that it depends on has changed; its report is made again only when it is
    missing. Raises UserError for unreadable images or a graph that cannot be quantised, CheckFailed when activations are not
    finite; older files then stay as they were.
    """
    if request.method != AUTO:
        parse_method(request.method, request.grid)  # refused before anything is read
    header_version(request.trt_version)
    implicit = ImplicitFiles.beside(int8_path)
    check_targets(request.onnx, int8_path, table_path, report_path)
    key = request.key()
    if (done := done_before(key, int8_path, table_path)) is not None:
        said(f"{int8_path} is what these images and this method make of {request.onnx} already, and is kept")
        _describe(int8_path, request.spec.made_from(**key.parents))
        _complete(request, done, implicit, report_path)
        return done
    network, given = _network(request), request.spec.input
    keep = kept(network, request.keep)
    how = "trying methods on some of" if request.method == AUTO else "calibrating on"
    said(f"{how} {len(request.images)} image{'s' * (len(request.images) > 1)} at {given.height}×{given.width}")
    trials = _trials(network, request, keep, said) if request.method == AUTO else []
    method = trials[0].method if trials else parse_method(request.method, request.grid)
    made, judge = _Made.by(network, request, keep, method), _judge(network, request)
    mixture = ALL_INT8 if request.budget is None else _mixture(made, request.budget, judge, said)
    if mixture.keep:
        made = made.keeping(mixture.keep)
    quantisation = made.quantisation
    result, float_convs = quantisation.model(), quantisation.placement.kept_float
    tried = tuple(TriedMethod(str(trial.method), trial.fidelity, trial.seconds) for trial in trials)
    table = CalibrationTable(
        key, quantisation.ranges, float_convs, str(method), judge(result), graph_sha256(result), tried, mixture.points
    )
    if (other := other_model(key, table_path)) is not None:
        said(f"{int8_path} takes the place of one that was made of another file, of sha256 {other[:12]}…")
    implicit.write(quantisation, key.digest(), request.trt_version)
    embed_spec(result, request.spec.made_from(**key.parents))
    save_onnx(int8_path, result)
    table.write(table_path)
    remove_report(table_path)  # on the calibration that was there
    if report_path is not None:
        said("measuring what each convolution costs, for the report (--no-report leaves it out)")
        write_report(report_path, layer_report(quantisation, judge, key.images, made.by_itself()), key.digest())
    return table


def _network(request: Request) -> Network:
    """What is to be quantised. Raises UserError, before any image is read, for what cannot be."""
    model, given = load_onnx(request.onnx), request.spec.input
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise UserError(str(request.onnx), "is quantised already", "calibrate the floating-point file that it was made from")
    require_opset(model)
    network = Network.prepared(model, given.height, given.width)
    if half := [conv.name for conv in network.convs if network.weights[conv.weight].dtype != np.float32]:
        raise UserError(str(request.onnx), f"has weights of other types than float32 ({half[0]})", "calibrate a float32 file")
    return network


@dataclass(frozen=True)
class _Made:
    """An INT8 network, and what makes others like it."""

    calibration: Calibration
    method: Method
    quantisation: Quantisation

    @classmethod
    def by(cls, network: Network, request: Request, keep: frozenset[str], method: Method) -> _Made:
        pictures = Pictures(request.images, request.spec.input, "calibrating")
        calibration = Calibration(network, pictures, keep, request.pooling)
        return cls(calibration, method, calibration.quantise(method))

    def keeping(self, convs: Collection[str]) -> _Made:
        """The network calibrated with these convolutions in floating point as well."""
        calibration = self.calibration.keeping(convs)
        return _Made(calibration, self.method, calibration.quantise(self.method))

    def by_itself(self) -> Quantisation:
        """The same with every layer rounded by itself."""
        if not self.method.sequential:
            return self.quantisation
        return self.calibration.quantise(replace(self.method, sequential=False))


def _judge(network: Network, request: Request) -> Judge:
    return Judge(network.model, Pictures(judged(request.images), request.spec.input)())


def _complete(request: Request, table: CalibrationTable, implicit: ImplicitFiles, report_path: Path | None) -> None:
    """Make what is missing beside a calibration made earlier, by the method that was chosen then."""
    digest = table.key.digest()
    needs_report = report_path is not None and read_report(report_path, digest) is None
    needs_implicit = not implicit.are_of(digest)
    if not (needs_report or needs_implicit):
        return
    network, method = _network(request), parse_method(table.chosen.partition(",")[0], request.grid)
    made = _Made.by(network, request, kept(network, request.keep) | {*table.kept_float}, method)
    if needs_implicit:
        implicit.write(made.quantisation, digest, request.trt_version)
    if report_path is not None and needs_report:
        report = layer_report(made.quantisation, _judge(network, request), table.key.images, made.by_itself())
        write_report(report_path, report, digest)


def _describe(int8_path: Path, spec: ModelSpec) -> None:
    """Classes, the kind of output and the like decide nothing of the numbers: they are put down anew."""
    model = load_onnx(int8_path)
    if embedded_spec(model, str(int8_path)) != spec:
        embed_spec(model, spec)
        save_onnx(int8_path, model)


def _mixture(made: _Made, budget: Budget, judge: Judge, said: Callable[[str], None]) -> Mixture:
    """What stays in float for the budget. Raises CheckFailed when even all but one convolution in float lose more."""
    drop_of = budget.drop_from(made.quantisation.float_network.model)
    drop = drop_of(made.quantisation.model())
    said(f"INT8 {_lost(drop)} mIoU, {'within' if drop <= budget.miou else 'over'} the budget of {budget.miou:g}")
    if drop <= budget.miou:
        return ALL_INT8
    said("looking for the convolutions that cost most")
    order = sensitivities(made.by_itself(), judge)
    found = search_mixture(lambda convs: made.keeping(convs).quantisation.model(), order, budget.miou, drop, drop_of)
    if not found.within:
        best = min(point.drop for point in found.points)
        raise CheckFailed(
            f"--budget-miou {budget.miou:g} cannot be met: the best mixture {_lost(best)}; "
            "give labelled data to judge by (--data), more calibration images or another --method, "
            "or fine-tune with `train --quantize`"
        )
    drop = next(point.drop for point in found.points if point.kept == len(found.keep))
    names = sorted(found.keep)
    which = ", ".join(names[:NAMED]) + " …" * (len(names) > NAMED)
    said(f"with {len(names)} more convolution{'s' * (len(names) > 1)} in floating point it {_lost(drop)}: {which}")
    return found


def _lost(drop: float) -> str:
    return f"gains {-drop:.4f}" if drop < 0 else f"loses {drop:.4f}"


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
                f"match whole names, as '*aspp*' does; they are {', '.join(names[:3])} …, as `inspect` lists them",
            )
        found.update(matches)
    return frozenset(found)


def judged(images: Sequence[Path]) -> list[Path]:
    """Some of the calibration images, spread evenly, to judge a finished model on: how well it does what it was made to do.

    Methods are told apart on images that none was calibrated on (`_trials`); how the model does elsewhere, labelled data say.
    """
    return spread(images, JUDGED_IMAGES)


def _trials(network: Network, request: Request, keep: frozenset[str], said: Callable[[str], None]) -> list[Trial]:
    """Every third image judges what is calibrated on the others; with fewer than three all do both, and that is said."""
    few = spread(request.images, TRIAL_IMAGES * 3 // 2)
    judges = few[FEWEST_TO_SPLIT - 1 :: 3]
    shown = [path for path in few if path not in judges]
    if not judges:
        some = f"{len(few)} image{'s' * (len(few) > 1)}"
        said(f"{some}: methods are judged on what they were calibrated on; give {FEWEST_TO_SPLIT} or more")
        judges = shown = few
    given = request.spec.input
    calibration = Calibration(network, Pictures(shown, given, "trying methods"), keep, request.pooling)
    judge = Judge(network.model, Pictures(judges, given)())
    return choose_method(calibration, judge, request.grid, request.time_budget_s, said)
