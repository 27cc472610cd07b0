"""Putting a fine-tuned model in the place of the calibrated one that it was tuned from, and all that lies beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.calibration.fidelity import Fidelity
from dlv3deploy.calibration.grid import QMAX, Range
from dlv3deploy.calibration.implicit import ImplicitFiles
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.quantize import sharing_one_scale
from dlv3deploy.calibration.report_file import remove_report
from dlv3deploy.calibration.table import CalibrationTable
from dlv3deploy.core.files import replacing, sha256_of
from dlv3deploy.core.graph import embed_spec, graph_sha256, load_onnx, save_onnx
from dlv3deploy.core.spec import ModelSpec, TrainingFacts

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto


@dataclass(frozen=True)
class Tuning:
    """What fine-tuning made: the graph, the step of every activation's grid, the updates taken, and the settings in words.

    `fidelity` is how near it comes to the float model, `training` what it was tuned on.
    """

    model: ModelProto
    activation_steps: Mapping[str, float]
    steps: int
    settings: str
    fidelity: Fidelity
    training: TrainingFacts


def put_in_place(
    tuning: Tuning, spec: ModelSpec, int8_path: Path, table: CalibrationTable, table_path: Path
) -> CalibrationTable:
    """Write the tuned model and its table over those it was tuned from, which stay beside them as `….previous.…`.

    `spec` is that file's. The new table has a key of its own: calibrating as before makes the calibrated model anew,
    and what was built from it is told apart.
    """
    learned = f"fine-tuned {tuning.steps} of {tuning.settings} on {tuning.training.data}"
    key = replace(table.key, method=f"{table.key.method}, {learned}")
    made = replace(
        table,
        key=key,
        ranges=tuned_ranges(tuning.model.graph, table.ranges, tuning.activation_steps),
        chosen=f"{table.chosen}, fine-tuned {tuning.steps} steps",
        fidelity=tuning.fidelity,
        model_sha256=graph_sha256(tuning.model),
        trials=(),
    )
    parents = {"calibrated": sha256_of(int8_path), "calibration": key.digest()}
    embed_spec(tuning.model, replace(spec, training=tuning.training).made_from(**parents))
    for path in (int8_path, table_path):
        with replacing(path.with_suffix(f".previous{path.suffix}")) as partial:
            shutil.copyfile(path, partial)
    _rewrite_implicit(tuning.model, made, ImplicitFiles.beside(int8_path))
    save_onnx(int8_path, tuning.model)
    made.write(table_path)
    remove_report(table_path)
    return made


def tuned_ranges(graph: GraphProto, ranges: Mapping[str, Range], steps: Mapping[str, float]) -> dict[str, Range]:
    """`ranges` stretched to the new steps; a tensor without a pair of its own follows those it shares a scale with in the Q/DQ
    `graph`."""
    stretched = {name: _stretched(ranges[name], step) for name, step in steps.items() if name in ranges}
    for group in sharing_one_scale(graph, ranges):
        for found in [stretched[name] for name in sorted(group) if name in stretched][:1]:
            stretched |= {name: found for name in group if name not in stretched}
    return {**ranges, **stretched}


def _stretched(before: Range, step: float) -> Range:
    if not max(abs(before.low), abs(before.high)):
        return Range(-step * QMAX, step * QMAX)
    factor = step / before.step()
    return Range(before.low * factor, before.high * factor)


@dataclass(frozen=True)
class _Tuned:
    network: Network
    ranges: Mapping[str, Range]


def _rewrite_implicit(model: ModelProto, table: CalibrationTable, files: ImplicitFiles) -> None:
    """The graph and the cache for implicit INT8, where calibration left them, with the weights and steps of `model`."""
    from onnx import numpy_helper

    if not (files.graph.is_file() and files.cache.is_file()):
        return
    plain = Network(load_onnx(files.graph))
    learned = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer if w.name in plain.weights}
    network = plain.with_weights(learned)
    files.rewrite(_Tuned(network, table.ranges), table.key.digest())
