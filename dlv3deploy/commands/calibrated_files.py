"""Which files a calibrated model consists of, and whether they belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from onnx import ModelProto

    from dlv3deploy.calibration.table import CalibrationTable
    from dlv3deploy.core.spec import ModelSpec


@dataclass(frozen=True)
class Calibrated:
    """The float file, the INT8 file made from it with what is in it, and the table that says how."""

    source: Path
    int8: Path
    model: ModelProto
    spec: ModelSpec
    table_path: Path
    table: CalibrationTable


def find_calibrated(place: Workspace, start: Path | None) -> Calibrated:
    """The workspace's INT8 file; or `start`, which is an INT8 file or the float file that one in the workspace was made from.

    Raises UserError where one of the files is missing or belongs to others.
    """
    from dlv3deploy.calibration.earlier import made_earlier
    from dlv3deploy.commands.models import check_export_is_current
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.files import require_file
    from dlv3deploy.core.graph import embedded_spec, load_onnx

    if start is not None and start.suffix != ".onnx":
        remedy = "give the INT8 file that `calibrate` wrote, or the float file that it read"
        raise UserError(f"--from {start} with --quantize", "is no ONNX file", remedy)
    if start is None:
        check_export_is_current(place)
    source = start or place.onnx
    int8, table_path = place.int8_onnx(source), place.calibration(source)
    if start is not None and _is_quantised(start):
        int8, table_path, source = start, _table_of(start), _float_of(start, place)
    again = place.command("calibrate", *(() if start is None else (source,)))
    require_file(int8, f"calibrate first: {again}")
    model = load_onnx(int8)
    spec = embedded_spec(model, str(int8))
    table = made_earlier(source, spec, int8, table_path) if spec else None
    if spec is None or table is None:
        raise UserError(
            str(int8), f"is not the file that {table_path} tells of, made from {source}", f"calibrate again: {again}"
        )
    return Calibrated(source, int8, model, spec, table_path, table)


def _is_quantised(path: Path) -> bool:
    from dlv3deploy.core.graph import load_onnx

    return any(node.op_type == "QuantizeLinear" for node in load_onnx(path).graph.node)


def _table_of(int8: Path) -> Path:
    """Beside the INT8 file, under the name that `calibrate` gives a table behind `--to`, else in a workspace."""
    behind_to = int8.with_suffix(".calibration.json")
    stem = int8.name.removesuffix(".onnx").removesuffix(".int8")
    return behind_to if behind_to.is_file() else Workspace(int8.parent).calibration(int8.with_name(f"{stem}.onnx"))


def _float_of(int8: Path, place: Workspace) -> Path:
    """The float file that an INT8 file was made from, beside it or in the workspace. Raises UserError."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.files import sha256_of
    from dlv3deploy.core.graph import embedded_spec, load_onnx

    spec = embedded_spec(load_onnx(int8), str(int8))
    wanted = spec.parents.get("onnx") if spec else None
    for path in sorted({*int8.parent.glob("*.onnx"), *place.root.glob("*.onnx")}):
        if wanted is not None and sha256_of(path) == wanted:
            return path
    raise UserError(
        str(int8),
        "the float model that it was made from, and is compared with, lies neither beside it nor in the workspace",
        "give the float file, and the workspace that it was calibrated in: --from FLOAT.onnx --workspace DIR",
    )
