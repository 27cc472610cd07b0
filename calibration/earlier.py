"""What a calibration left, and whether it still holds: for the same request, for an engine, or for another model altogether."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.calibration.table import CalibrationKey, CalibrationTable, how_pixels_are_read
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.graph import embedded_spec, graph_sha256, load_onnx
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.workspace import Workspace

if TYPE_CHECKING:
    from onnx import ModelProto


def done_before(key: CalibrationKey, int8_path: Path, table_path: Path) -> CalibrationTable | None:
    """The table of a calibration with this very key, whose INT8 file is still what it made; None when there is none."""
    if not (int8_path.is_file() and table_path.is_file()):
        return None
    try:
        table, model = CalibrationTable.read(table_path), load_onnx(int8_path)
        spec = embedded_spec(model, str(int8_path))
    except UserError:
        return None  # damaged: made again
    is_told = spec is not None and spec.parents.get("calibration") == key.digest()
    return table if table.key == key and is_told and graph_sha256(model) == table.model_sha256 else None


def made_earlier(onnx: Path, spec: ModelSpec, int8_path: Path, table_path: Path) -> CalibrationTable | None:
    """The table of a calibration of this very file that is still whole, by whatever method; None when there is none.

    Raises UserError when it was made at another input size or for pixels in another scale.
    """
    try:
        table = CalibrationTable.read(table_path)
    except UserError:
        return None
    found = table.key
    if found.onnx_sha256 != sha256_of(onnx) or done_before(found, int8_path, table_path) is None:
        return None
    size = spec.input.height, spec.input.width
    command = Workspace(table_path.parent).command("calibrate", "--size", f"{size[0]}x{size[1]}")
    if found.resolution != size:
        raise UserError(
            f"{table_path}, made at {found.resolution[0]}×{found.resolution[1]}",
            f"ranges of atrous convolutions do not hold at another size, and the engine's is {size[0]}×{size[1]}",
            f"calibrate at it: {command}, or give --images",
        )
    if found.preprocessing != (asked := how_pixels_are_read(spec.input)):
        raise UserError(
            f"{table_path}, made for {found.preprocessing}",
            f"ranges hold for the pixels that they were found with, and this asks for {asked}",
            "leave --mean and --std out, which the calibrated file knows, or calibrate again with these",
        )
    return table


def described_earlier(model: ModelProto, onnx: Path, int8_path: Path) -> ModelSpec | None:
    """What was said of `model`, read from `onnx`, when it was calibrated; None where it describes itself, was not calibrated or
    has changed since."""
    if not int8_path.is_file() or embedded_spec(model, str(onnx)) is not None:
        return None
    try:
        spec = embedded_spec(load_onnx(int8_path), str(int8_path))
    except UserError:
        return None
    is_of_this = spec is not None and spec.parents.get("onnx") == sha256_of(onnx)
    return replace(spec, parents={}, training=None) if spec is not None and is_of_this else None


def other_model(key: CalibrationKey, table_path: Path) -> str | None:
    """The sha256 of the ONNX file that the table there was made of, where it is another one."""
    try:
        earlier = CalibrationTable.read(table_path).key.onnx_sha256
    except UserError:
        return None
    return None if earlier == key.onnx_sha256 else earlier
